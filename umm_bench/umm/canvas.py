"""What denoising starts from: noise, a picture (image-to-image), or a picture with a hole (inpainting).

Random numbers are drawn in the order of diffusers' own pipelines, so that alpha = 0 gives their images. Shapes: B
images, C latent channels, H height, W width.
"""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from umm_bench.errors import UserError
from umm_bench.images import ImageInput, open_image


@dataclass(frozen=True)
class Kept:
    """The part of the picture that inpainting leaves alone: its latents, the noise they got, and where (mask 0)."""

    latents_BCHW: Tensor
    noise_BCHW: Tensor
    mask_B1HW: Tensor

    def restore(self, latents_BCHW: Tensor, scheduler: Any, next_timestep: Tensor | None) -> Tensor:
        """Puts the kept part back, as noisy as `next_timestep` asks (None: clean)."""
        kept_BCHW = self.latents_BCHW
        if next_timestep is not None:
            kept_BCHW = scheduler.add_noise(kept_BCHW, self.noise_BCHW, next_timestep[None])
        return (1 - self.mask_B1HW) * kept_BCHW + self.mask_B1HW * latents_BCHW


@dataclass(frozen=True)
class Canvas:
    """`extra_BCHW` are the further input channels of an inpainting UNet: mask and masked picture."""

    latents_BCHW: Tensor
    timesteps: Tensor
    num_inference_steps: int
    extra_BCHW: Tensor | None = None
    kept: Kept | None = None

    def check_channels(self, unet: Any) -> None:
        """Raises UserError where the UNet takes another number of channels."""
        given = self.latents_BCHW.shape[1] + (0 if self.extra_BCHW is None else self.extra_BCHW.shape[1])
        if given != unet.config.in_channels:
            raise UserError(
                f"this base's UNet takes {unet.config.in_channels} channels, not {given}; "
                "an inpainting UNet needs both image and mask_image"
            )


def picture_canvas(
    pipe: Any,
    image: ImageInput,
    mask_image: ImageInput | None,
    strength: float | None,
    num_images: int,
    size: tuple[int, int],
    num_inference_steps: int,
    generator: Any,
    dtype: torch.dtype,
) -> Canvas:
    """Starts from `image` resized to `size` (height, width), made as noisy as `strength` in (0, 1] asks.

    With a `mask_image` only its white part is drawn anew. The scheduler's timesteps must be set. Raises UserError
    for a strength that leaves no step.
    """
    if strength is None:
        strength = 0.8 if mask_image is None else 1.0
    if not 0.0 < strength <= 1.0:
        raise UserError(f"strength is {strength}; it must lie above 0 (keep the picture) and at most at 1 (redraw it)")
    steps = int(num_inference_steps * strength)
    if steps < 1:
        raise UserError(f"strength {strength} of {num_inference_steps} steps leaves none; raise either")
    first = (num_inference_steps - steps) * pipe.scheduler.order
    timesteps = pipe.scheduler.timesteps[first:]
    if hasattr(pipe.scheduler, "set_begin_index"):
        pipe.scheduler.set_begin_index(first)
    height, width = size
    pixels = pipe.image_processor.preprocess([open_image(image)], height=height, width=width)
    # a row an image, so that each is encoded with its own generator
    pixels_BCHW = pixels.to(pipe._execution_device, dtype).repeat(num_images, 1, 1, 1)

    blank = mask_image is not None and strength == 1.0
    inpainting_unet = mask_image is not None and pipe.unet.config.in_channels != pipe.vae.config.latent_channels
    shape = (num_images, pipe.vae.config.latent_channels, *_latent_size(pipe, size))
    if not (blank and inpainting_unet):
        clean_BCHW = _encode(pipe, pixels_BCHW, generator)
    noise_BCHW = randn_tensor(shape, generator=generator, device=pixels_BCHW.device, dtype=dtype)
    if blank:
        latents_BCHW = noise_BCHW * pipe.scheduler.init_noise_sigma
    else:
        latents_BCHW = pipe.scheduler.add_noise(clean_BCHW, noise_BCHW, timesteps[:1].repeat(num_images))
    if mask_image is None:
        return Canvas(latents_BCHW, timesteps, steps)
    mask = _mask(pipe, mask_image, size).to(pixels_BCHW)
    mask_B1HW = torch.nn.functional.interpolate(mask, size=shape[2:]).repeat(num_images, 1, 1, 1)
    if not inpainting_unet:
        return Canvas(latents_BCHW, timesteps, steps, kept=Kept(clean_BCHW, noise_BCHW, mask_B1HW))
    masked_BCHW = _encode(pipe, pixels_BCHW * (mask < 0.5), generator)
    return Canvas(latents_BCHW, timesteps, steps, extra_BCHW=torch.cat([mask_B1HW, masked_BCHW], dim=1))


def _latent_size(pipe: Any, size: tuple[int, int]) -> tuple[int, int]:
    return size[0] // pipe.vae_scale_factor, size[1] // pipe.vae_scale_factor


def _encode(pipe: Any, pixels_BCHW: Tensor, generator: Any) -> Tensor:
    return pipe.vae.encode(pixels_BCHW).latent_dist.sample(generator) * pipe.vae.config.scaling_factor


def _mask(pipe: Any, mask_image: ImageInput, size: tuple[int, int]) -> Tensor:
    processor = VaeImageProcessor(
        vae_scale_factor=pipe.vae_scale_factor, do_normalize=False, do_binarize=True, do_convert_grayscale=True
    )
    return processor.preprocess([open_image(mask_image)], height=size[0], width=size[1])
