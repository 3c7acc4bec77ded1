"""The generator: a UNet on cached latents, v-prediction, saved as a complete `StableDiffusionPipeline`."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from umm_bench.mini import family, scenes, sprites
from umm_bench.mini.recipes.clip import image_processor, split_towers
from umm_bench.mini.recipes.vae import to_tensor


@dataclass(frozen=True)
class SDConfig:
    """`scenes` latents are cached, in files of `chunk`; each step draws from them.

    A scene with a concept beyond the `head` most frequent ones is drawn `tail_rate` as often as another: on a CPU's
    budget the classes that people try first need the examples. `concept_counts.json` records what came of it.
    """

    channels: tuple[int, ...] = (64, 128, 256)
    scenes: int = 32_768
    chunk: int = 2048
    batch_size: int = 32
    caption_drop: float = 0.1
    head: int = 60
    tail_rate: float = 0.25
    seed: int = 3
    vae: Path = Path("runs/mini/vae/model")
    clip: Path = Path("runs/mini/clip/model")
    cache: Path = Path("runs/mini/sd/latents")


def scheduler() -> DDIMScheduler:
    """SD's schedule with zero terminal SNR (2305.08891): without it a black or white background turns gray."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def build(config: SDConfig, latent_channels: int, text_width: int) -> UNet2DConditionModel:
    """A randomly initialised UNet; text is read at 8x8 and in the middle."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=config.channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=text_width,
        attention_head_dim=(2, 4, 8),  # diffusers reads this as the number of heads
        norm_num_groups=16,
    )


def _chunks(config: SDConfig, vae: AutoencoderKL) -> Iterator[torch.Tensor]:
    """Posterior means of the composer's scenes in order, float16 [chunk, C, 16, 16]; made once, then read."""
    config.cache.mkdir(parents=True, exist_ok=True)
    for first in range(0, config.scenes, config.chunk):
        path = config.cache / f"{first:07d}.safetensors"
        if not path.exists():
            means = []
            for start in range(first, first + config.chunk, 32):
                images = np.stack([scenes.compose(f"sd-{i}").image for i in range(start, start + 32)])
                with torch.no_grad():
                    means.append(vae.encode(to_tensor(images)).latent_dist.mean.half())
            save_file({"mean": torch.cat(means).contiguous()}, f"{path}.part")
            os.replace(f"{path}.part", path)
        yield load_file(path)["mean"]


class SDRecipe:
    name = "sd"

    def __init__(self, config: SDConfig = SDConfig()) -> None:
        self.config = config
        if config.vae.is_dir() and config.clip.is_dir():
            self.vae = AutoencoderKL.from_pretrained(config.vae)
            self.tokenizer = CLIPTokenizer.from_pretrained(config.clip)
            self.text_encoder, self.image_encoder = split_towers(config.clip)
        else:  # a clone has the shipped family only: go on with its VAE and CLIP
            sd = family.path("sd")
            self.vae = AutoencoderKL.from_pretrained(sd, subfolder="vae")
            self.tokenizer = CLIPTokenizer.from_pretrained(sd / "tokenizer")
            self.text_encoder = CLIPTextModel.from_pretrained(sd / "text_encoder", dtype=torch.float32)
            self.image_encoder = CLIPVisionModelWithProjection.from_pretrained(
                family.path("image_encoder"), dtype=torch.float32
            )
        self.vae.eval().requires_grad_(False)
        self.text_encoder.eval().requires_grad_(False)
        torch.manual_seed(config.seed)
        self.module = build(config, self.vae.config.latent_channels, self.text_encoder.config.hidden_size)
        self.scheduler = scheduler()
        # The posterior is narrow (the KL weight is 1e-6), so its mean stands for a draw.
        self.latents = torch.cat(list(_chunks(config, self.vae)))
        # SD's convention: unit variance over all channels, one number in the VAE's configuration.
        self.vae.register_to_config(scaling_factor=round(1.0 / self.latents.float().std().item(), 5))
        self.captions: list[str] = []
        world, weights = sprites.load(), []
        self.counts: defaultdict[str, float] = defaultdict(float)  # concepts in as many draws as there are scenes
        composed = [scenes.compose(f"sd-{i}") for i in range(config.scenes)]
        for scene in composed:
            self.captions.append(scene.caption)
            rare = any(world.by_name[thing.concept].rank >= config.head for thing in scene.objects)
            weights.append(config.tail_rate if rare else 1.0)
        self.cumulative = np.cumsum(weights) / np.sum(weights)
        for scene, weight in zip(composed, np.array(weights) / np.mean(weights), strict=True):
            for thing in scene.objects:
                self.counts[thing.concept] += weight

    def loss(self, step: int) -> torch.Tensor:
        c = self.config
        rng = scenes.rng_for("sd-batch", c.seed, step)
        rows = np.searchsorted(self.cumulative, rng.random(c.batch_size), side="right").clip(max=c.scenes - 1)
        captions = ["" if rng.random() < c.caption_drop else self.captions[i] for i in rows]
        tokens = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        with torch.no_grad():
            h_BLD = self.text_encoder(tokens.input_ids).last_hidden_state
        x_BCHW = self.latents[torch.from_numpy(rows)].float() * self.vae.config.scaling_factor
        # One timestep from each of B equal parts of the schedule: the same expectation, less variance.
        t_B = ((torch.randperm(c.batch_size) + torch.rand(c.batch_size)) / c.batch_size * 1000).long().clamp(max=999)
        noise = torch.randn_like(x_BCHW)
        noisy = self.scheduler.add_noise(x_BCHW, noise, t_B)
        v = self.scheduler.get_velocity(x_BCHW, noise, t_B)
        # Plain v loss: Min-SNR on top of v takes weight from the noisy steps, where class and layout are decided.
        return F.mse_loss(self.module(noisy, t_B, h_BLD).sample, v)

    def save(self, folder: Path) -> None:
        StableDiffusionPipeline(
            vae=self.vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            unet=self.module,
            scheduler=self.scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).save_pretrained(folder, max_shard_size="24MB")  # 12 MB each once halved
        (folder / "concept_counts.json").write_text(
            json.dumps(
                {name: round(n, 1) for name, n in sorted(self.counts.items(), key=lambda item: -item[1])}, indent=0
            )
        )

    def load(self, folder: Path) -> None:
        self.module.load_state_dict(UNet2DConditionModel.from_pretrained(folder, subfolder="unet").state_dict())

    def save_image_encoder(self, folder: Path) -> None:
        """The tower beside the text encoder, for the TIUE."""
        self.image_encoder.save_pretrained(folder)
        image_processor().save_pretrained(folder)
