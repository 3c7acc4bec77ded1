"""What a picture becomes by a generator's VAE: all that is generated comes from its decoder, references do not."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from umm_bench.base import model_fingerprint, pick_device, resolve_model
from umm_bench.metrics.base import Unusable
from umm_bench.weights import LOAD_ERRORS, first_line

MULTIPLE = 64  # of a picture's sides, which the border's pixels are repeated to


class Decoder:
    """The VAE of a Stable Diffusion by name: "mini", a folder or a hub id. Loaded at first use."""

    def __init__(self, name: str) -> None:
        self.location = resolve_model(name, "sd")

    @property
    def weights(self) -> list[Path]:
        folder = Path(self.location)
        return [folder / "vae"] if folder.is_dir() else []

    @property
    def label(self) -> str:
        return model_fingerprint(str(self.weights[0]))[:8] if self.weights else self.location

    @cached_property
    def vae(self) -> Any:
        import torch
        from diffusers import AutoencoderKL

        try:
            vae = AutoencoderKL.from_pretrained(self.location, subfolder="vae", torch_dtype=torch.float32)
        except LOAD_ERRORS as error:
            raise Unusable(f"several.vae {self.location} cannot be loaded: {first_line(error)}") from error
        return vae.eval().to(pick_device())

    def __call__(self, image: Image.Image) -> Image.Image:
        """An RGB picture encoded and decoded, of the same size."""
        import torch

        width, height = image.size
        more = [(0, -extent % MULTIPLE) for extent in (height, width)]
        pixels = np.pad(np.asarray(image), (*more, (0, 0)), "edge")
        x_BCHW = torch.from_numpy(pixels).permute(2, 0, 1)[None].float().to(self.vae.device) / 127.5 - 1
        with torch.inference_mode():
            x_BCHW = self.vae.decode(self.vae.encode(x_BCHW).latent_dist.mean).sample.clamp(-1, 1)
        decoded = ((x_BCHW[0].permute(1, 2, 0) + 1) * 127.5).round().byte().cpu().numpy()
        return Image.fromarray(np.ascontiguousarray(decoded[:height, :width]))
