"""The VAE: 64 px to 16x16x8 latents. Fully convolutional (no attention), so it learns on crops of half the side."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from umm_bench.errors import UserError
from umm_bench.mini import family
from umm_bench.mini.recipes.common import run_folder
from umm_bench.mini.world import scenes


@dataclass(frozen=True)
class VAEConfig:
    """Sizes; the latent is four times smaller than the image.

    `transformed` is the share of steps whose latents are shrunk and turned before decoding, to match the image shrunk
    and turned (EQ-VAE, 2502.09509): latents that look like pictures are far easier for the UNet.
    """

    image_size: int = 64
    channels: tuple[int, ...] = (24, 48, 96)
    latent_channels: int = 8
    crop: int = 32
    scenes_per_step: int = 10
    crops_per_scene: int = 4
    kl_weight: float = 1e-6
    transformed: float = 0.5
    seed: int = 0


@dataclass(frozen=True)
class DecoderConfig(VAEConfig):
    """`noise` is the most that is laid on a latent before decoding, in its standard deviations.

    `encoder` is filled in: a digest of the encoder's weights, as a checkpoint is worth nothing beside another one.
    """

    noise: float = 0.6
    seed: int = 5
    encoder: str = ""


def build(config: VAEConfig) -> AutoencoderKL:
    """A randomly initialised VAE."""
    levels = len(config.channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.channels,
        layers_per_block=1,
        latent_channels=config.latent_channels,
        norm_num_groups=8,
        sample_size=config.image_size,
        mid_block_add_attention=False,
    )


def to_tensor(images: np.ndarray | torch.Tensor) -> torch.Tensor:
    """uint8 [B, S, S, 3] to float [B, 3, S, S] in [-1, 1], where it is."""
    pixels = images if isinstance(images, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(images))
    return pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1.0)


def _shrink_and_turn(x_BCHW: torch.Tensor, share: float, turns: int) -> torch.Tensor:
    side = round(x_BCHW.shape[-1] * share)
    small = F.interpolate(x_BCHW.float(), size=(side, side), mode="bilinear", antialias=True)
    return torch.rot90(small, turns, (2, 3))


def _difference(error_BCHW: torch.Tensor) -> torch.Tensor:
    """The square is what PSNR asks for; the absolute value keeps edges from blurring."""
    return error_BCHW.square().mean() + 0.1 * error_BCHW.abs().mean()


class VAERecipe:
    name = "vae"
    default = VAEConfig()

    def __init__(self, config: VAEConfig = default) -> None:
        self.config = config
        self.batch_size = config.scenes_per_step * config.crops_per_scene
        torch.manual_seed(config.seed)
        self.module = build(config)

    def batch(self, step: int) -> torch.Tensor:
        """The crops of a step, [B, 3, crop, crop]."""
        c, crops = self.config, []
        for i in range(c.scenes_per_step):
            key = f"vae-{c.seed}-{step}-{i}"
            image = scenes.compose(key, size=c.image_size).image
            rng = scenes.rng_for("crop", key)
            for y, x in rng.integers(0, c.image_size - c.crop + 1, (c.crops_per_scene, 2)):
                crops.append(image[y : y + c.crop, x : x + c.crop])
        return to_tensor(np.stack(crops))

    def loss(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        posterior = self.module.encode(x_BCHW).latent_dist
        z_BCHW = posterior.sample()
        if torch.rand(()) < self.config.transformed:
            turns, share = int(torch.randint(4, ())), float(torch.randint(2, 5, ())) / 4
            z_BCHW, x_BCHW = (_shrink_and_turn(image, share, turns) for image in (z_BCHW, x_BCHW))
        reconstruction = _difference(self.module.decode(z_BCHW).sample.float() - x_BCHW)
        return reconstruction + self.config.kl_weight * posterior.kl().mean()

    def save(self, folder: Path) -> None:
        self.module.save_pretrained(folder)

    def load(self, folder: Path) -> None:
        self.module.load_state_dict(AutoencoderKL.from_pretrained(folder).state_dict())

    def parts(self) -> list[Path]:
        return []


class DecoderRecipe(VAERecipe):
    """The finished VAE's decoder once more, on latents with noise; the encoder stays as it is.

    A small generator leaves some of a latent undecided, and a decoder that has seen none such draws that as a mosaic.
    As the latents stay, so does every generator that was trained on them.
    """

    name = "decoder"
    default: DecoderConfig = DecoderConfig()

    def __init__(self, config: DecoderConfig = default) -> None:
        self.noise = config.noise
        self.batch_size = config.scenes_per_step * config.crops_per_scene
        vae = family.path("sd") / "vae" if config.image_size == 64 else run_folder("vae", config.image_size) / "model"
        if not vae.is_dir():
            raise UserError(f"train vae at {config.image_size} px first: {vae} is not there")
        self.vae = AutoencoderKL.from_pretrained(vae, torch_dtype=torch.float32).requires_grad_(False)
        weights = torch.nn.utils.parameters_to_vector(self.vae.encoder.parameters()).numpy()
        self.config = dataclasses.replace(config, encoder=hashlib.sha256(weights.tobytes()).hexdigest()[:16])
        parts = {"decoder": self.vae.decoder, "post_quant_conv": self.vae.post_quant_conv}
        self.module = torch.nn.ModuleDict(parts).requires_grad_(True)

    def loss(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        self.vae.to(x_BCHW.device)
        with torch.no_grad():
            z_BCHW = self.vae.encode(x_BCHW).latent_dist.mean
            sigma_B111 = self.noise * torch.rand(len(z_BCHW), 1, 1, 1, device=z_BCHW.device)
            noisy_BCHW = z_BCHW + sigma_B111 / self.vae.config.scaling_factor * torch.randn_like(z_BCHW)
        return _difference(self.vae.decode(noisy_BCHW).sample.float() - x_BCHW)

    def save(self, folder: Path) -> None:
        self.vae.to("cpu").save_pretrained(folder)

    def load(self, folder: Path) -> None:
        self.vae.load_state_dict(AutoencoderKL.from_pretrained(folder).state_dict())

    def parts(self) -> list[Path]:
        return [family.path("sd")] if self.config.image_size == 64 else []
