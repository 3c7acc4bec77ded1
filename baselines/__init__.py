"""What UMM is compared with: plain Stable Diffusion, Textual Inversion and DreamBooth, each a `Method`."""
