"""VAE posteriors, encoded once a picture for all methods of a process and drawn from anew at every step."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image, ImageOps
from torch import Tensor

Augment = Literal["none", "flip"]

KEPT = 1024  # pictures; of 512 pixels each takes 128 KB
_POSTERIORS: WeakKeyDictionary[AutoencoderKL, OrderedDict[bytes, tuple[Tensor, Tensor]]] = WeakKeyDictionary()
"""By the VAE itself and the square's pixels, so that neither another size nor other weights can be taken for them."""


@dataclass(frozen=True)
class LatentCache:
    """The VAE posteriors of a set of images: of encoding at every step, only the noise would change.

    `mean_NCHW` and `std_NCHW` are in the VAE's own scale; `sample` returns latents in the UNet's scale.
    """

    mean_NCHW: Tensor
    std_NCHW: Tensor
    scaling_factor: float
    shift_factor: float

    def sample(self, indices_B: Tensor, generator: torch.Generator) -> Tensor:
        mean_BCHW, std_BCHW = self.mean_NCHW[indices_B], self.std_NCHW[indices_B]
        noise_BCHW = torch.randn(mean_BCHW.shape, generator=generator).to(mean_BCHW)
        return (mean_BCHW + std_BCHW * noise_BCHW - self.shift_factor) * self.scaling_factor

    def __len__(self) -> int:
        return len(self.mean_NCHW)


def cache_latents(vae: AutoencoderKL, images: Sequence[Image.Image], size: int, augment: Augment) -> LatentCache:
    """Encodes `images`, cropped to `size` pixels square; `augment="flip"` adds each one's mirror image."""
    squares = [ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BICUBIC) for image in images]
    if augment == "flip":
        squares += [ImageOps.mirror(square) for square in squares]
    posteriors = [_posterior(vae, square) for square in squares]
    return LatentCache(
        torch.cat([mean for mean, _ in posteriors]),
        torch.cat([std for _, std in posteriors]),
        vae.config.scaling_factor,
        vae.config.shift_factor or 0.0,
    )


def forget() -> None:
    """Encodes everything anew from here on, as another process would."""
    _POSTERIORS.clear()


@torch.no_grad()
def _posterior(vae: AutoencoderKL, square: Image.Image) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, each [1, C, H, W]. One picture at a time, so that company changes no bit of it."""
    known = _POSTERIORS.setdefault(vae, OrderedDict())
    key = hashlib.sha256(f"{square.size}".encode() + square.tobytes()).digest()
    if key not in known:
        pixels_HWC = np.asarray(square, dtype=np.float32) / 127.5 - 1
        pixels_1CHW = torch.from_numpy(pixels_HWC).permute(2, 0, 1)[None].to(vae.device, vae.dtype)
        posterior = vae.encode(pixels_1CHW).latent_dist
        known[key] = (posterior.mean, posterior.std)
    known.move_to_end(key)
    while len(known) > KEPT:
        known.popitem(last=False)
    return known[key]
