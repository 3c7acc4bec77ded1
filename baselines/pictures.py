"""What DreamBooth draws its batches from: the pictures of several subjects, or of their classes, with their texts."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from baselines.latents import Augment, cache_latents


class Pictures:
    """Latents of one group of pictures a text, each picture with the number of its group."""

    def __init__(
        self,
        vae: AutoencoderKL,
        groups: Sequence[Sequence[Image.Image]],
        texts: Sequence[str],
        size: int,
        augment: Augment,
    ) -> None:
        caches = [cache_latents(vae, images, size, augment) for images in groups]
        self.texts = list(texts)
        self.latents = replace(
            caches[0],
            mean_NCHW=torch.cat([cache.mean_NCHW for cache in caches]),
            std_NCHW=torch.cat([cache.std_NCHW for cache in caches]),
        )
        self.group_N = torch.tensor([group for group, cache in enumerate(caches) for _ in range(len(cache))])

    def sample(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents [B, C, H, W] of random pictures, and their groups [B]."""
        image_B = torch.randint(len(self.latents), (batch_size,), generator=generator)
        return self.latents.sample(image_B, generator), self.group_N[image_B]
