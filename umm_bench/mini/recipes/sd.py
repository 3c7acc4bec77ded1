"""The generator: a UNet on cached latents, v-prediction, saved as a complete `StableDiffusionPipeline`."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from umm_bench.errors import UserError
from umm_bench.mini import family, scenes, sprites, tokenizer
from umm_bench.mini.recipes.clip import image_processor, split_towers
from umm_bench.mini.recipes.common import Runtime, run_folder
from umm_bench.mini.recipes.vae import to_tensor
from umm_bench.progress import Tracker
from umm_bench.umm.encoded import weights_digest

SCENES = 5
COUNTED = 16_384  # `concept_counts.json` says in how many of so many scenes a concept is


def _part(name: str, image_size: int) -> Path:
    """Where a finished VAE or CLIP is: of a training here or, in a clone, one that is ahead of the shipped `sd`."""
    here = run_folder(name, image_size) / "model"
    return family.PARTS / name if image_size == 64 and not here.is_dir() else here


@dataclass(frozen=True)
class SDConfig:
    """`captions` of the composer, each with the latents of `draws` pictures that it describes, in files of `chunk`.

    A scene is kept with a chance that falls with its most frequent concept's share: among the `head` most frequent
    ones by its power `flatten`, and to `tail_rate` beyond: on a CPU's budget the classes that people try first need
    the examples. `concept_counts.json` records what came of it. For the same reason `posed` of the pictures have their
    sprites upright, and a large one in the middle: a place, turn and mirror image for each outline is much to learn,
    and what a sampler cannot decide on becomes a mosaic. And `plain` of the captions are portraits': concepts and a
    background, no more words.
    """

    image_size: int = 64
    channels: tuple[int, int] = (64, 128)
    captions: int = 16384
    draws: int = 8
    chunk: int = 256
    batch_size: int = 24
    caption_drop: float = 0.1
    head: int = 100
    flatten: float = 0.5
    tail_rate: float = 0.05
    posed: float = 0.9
    plain: float = 0.65
    seed: int = 3
    encoder: str = ""  # digests of the VAE's encoder and the image tower: latents and checkpoints belong to them
    tower: str = ""

    @property
    def vae(self) -> Path:
        return _part("vae", self.image_size)

    @property
    def clip(self) -> Path:
        return _part("clip", self.image_size)

    @property
    def cache(self) -> Path:
        """Of the latents, by all that they are made of; SCENES goes up when the composer's pictures change."""
        kept = f"{self.head}-{self.flatten:g}-{self.tail_rate:g}-{self.posed:g}-{self.plain:g}"
        made_of = f"{self.encoder}-{self.captions}x{self.draws}-{kept}-{self.chunk}-{SCENES}"
        return run_folder("sd", self.image_size) / "latents" / made_of


def _digest(module: torch.nn.Module) -> str:
    """Of the weights in half precision, as which they are shipped: a part and what is shipped of it are the same."""
    return weights_digest(copy.deepcopy(module).half())[:16]


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
    """A randomly initialised UNet: little at the latents' full size, much at half of it, where text is read.

    Three levels of (64, 128, 256) cost less a step, but had 128 channels only at 8x8, where outlines are decided.
    """
    return UNet2DConditionModel(
        sample_size=config.image_size // 4,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=config.channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=text_width,
        attention_head_dim=(2, 4),  # diffusers reads this as the number of heads
        norm_num_groups=16,
    )


def _kept(config: SDConfig) -> Iterator[tuple[str, scenes.Scene]]:
    """The keys and scenes whose captions the generator learns, without end."""
    trained = [concept for concept in sprites.load().concepts if concept.weight > 0]
    least = trained[min(config.head, len(trained)) - 1].weight
    chance = {c.name: (least / c.weight) ** config.flatten for c in trained[: config.head]}
    for i in count():
        key = f"sd-{i}"
        if scenes.rng_for("sd-plain", key).random() < config.plain:
            scene = scenes.portrait(key, size=config.image_size)
        else:
            scene = scenes.compose(key, size=config.image_size, posed=config.posed)
        rate = min((chance.get(o.concept, config.tail_rate) for o in scene.objects), default=0.0)
        if scenes.rng_for("sd-kept", key).random() < rate:
            yield key, scene


def _make_chunk(
    path: Path, kept: Sequence[tuple[str, scenes.Scene]], config: SDConfig, vae: AutoencoderKL, runtime: Runtime
) -> None:
    device, dtype = runtime.device, runtime.dtype
    means, texts = [], []
    for key, scene in kept:
        texts.append({"caption": scene.caption, "concepts": [o.concept for o in scene.objects]})
        images = to_tensor(scenes.redraw(scene, key, config.draws, posed=config.posed)).to(device)
        with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            means.append(vae.encode(images).latent_dist.mean.half().cpu())
    save_file({"mean": torch.stack(means).contiguous()}, f"{path}.part", metadata={"scenes": json.dumps(texts)})
    os.replace(f"{path}.part", path)


def cached_scenes(config: SDConfig, vae: AutoencoderKL) -> tuple[torch.Tensor, list[dict]]:
    """Posterior means of captions' pictures, float16 [captions, draws, C, S / 4, S / 4], each caption and its concepts.

    Made once for a VAE's encoder, in `config.cache`; what is there is read.
    """
    config.cache.mkdir(parents=True, exist_ok=True)
    paths = {first: config.cache / f"{first:07d}.safetensors" for first in range(0, config.captions, config.chunk)}
    missing = [first for first, path in paths.items() if not path.exists()]
    if missing:
        kept, seen, runtime = _kept(config), 0, Runtime.detect()
        with Tracker(Console(stderr=True), "captions drawn", config.captions) as tracker:
            for first in missing:
                size = min(config.chunk, config.captions - first)
                rows = list(islice(kept, first - seen, first - seen + size))
                _make_chunk(paths[first], rows, config, vae.to(runtime.device), runtime)
                seen = first + size
                tracker.update(seen)
    means, texts = [], []
    for path in paths.values():
        with safe_open(path, "pt") as file:
            means.append(file.get_tensor("mean"))
            texts += json.loads(file.metadata()["scenes"])
    vae.to("cpu")
    return torch.cat(means), texts


def expected(
    noisy_BCHW: torch.Tensor, clean_BKCHW: torch.Tensor, alpha_B: torch.Tensor, sigma_B: torch.Tensor
) -> torch.Tensor:
    """The mean of the pictures that a noisy one can be of, [B, C, H, W], given K that are equally likely before.

    A sample of it is what a diffusion model is usually shown (one picture and its noise); this has the same mean and
    far less variance, most where there is much noise (stable target field, 2302.00670).
    """
    difference = noisy_BCHW[:, None] - alpha_B[:, None, None, None, None] * clean_BKCHW
    weight_BK = (-difference.square().sum((2, 3, 4)) / (2 * sigma_B.square()[:, None])).softmax(1)
    return (weight_BK[:, :, None, None, None] * clean_BKCHW).sum(1)


class SDRecipe:
    name = "sd"
    default = SDConfig()

    def __init__(self, config: SDConfig = default) -> None:
        self.batch_size = config.batch_size
        missing = [part for part in (config.vae, config.clip) if not part.is_dir()]
        if not missing:
            self.vae = AutoencoderKL.from_pretrained(config.vae)
            self.tokenizer = CLIPTokenizer.from_pretrained(config.clip)
            self.text_encoder, self.image_encoder = split_towers(config.clip)
        elif config.image_size != 64 or len(missing) == 1:
            raise UserError(f"train both vae and clip at {config.image_size} px first: {missing[0]} is not there")
        else:  # a clone has the shipped family only: go on with its VAE and CLIP
            sd = family.path("sd")
            self.vae = AutoencoderKL.from_pretrained(sd, subfolder="vae")
            self.tokenizer = CLIPTokenizer.from_pretrained(sd / "tokenizer")
            self.text_encoder = CLIPTextModel.from_pretrained(sd / "text_encoder", dtype=torch.float32)
            self.image_encoder = CLIPVisionModelWithProjection.from_pretrained(
                family.path("image_encoder"), dtype=torch.float32
            )
        self.vae.eval().requires_grad_(False)
        self.config = dataclasses.replace(config, encoder=_digest(self.vae.encoder), tower=_digest(self.image_encoder))
        torch.manual_seed(config.seed)
        self.unet = build(config, self.vae.config.latent_channels, self.text_encoder.config.hidden_size)
        self.unet.set_attn_processor(AttnProcessor())  # as in clip.py, plain products
        # The text encoder goes on learning with the UNet, as LDM's did (2112.10752).
        self.module = torch.nn.ModuleDict({"unet": self.unet, "text_encoder": self.text_encoder})
        self.scheduler = scheduler()
        # The posterior is narrow (the KL weight is 1e-6), so its mean stands for a draw.
        self.latents, texts = cached_scenes(self.config, self.vae)
        # SD's convention: unit variance over all channels, one number in the VAE's configuration.
        self.vae.register_to_config(scaling_factor=round(1.0 / self.latents.float().std().item(), 5))
        self.captions = [text["caption"] for text in texts]
        self.counts: Counter[str] = Counter(name for text in texts for name in text["concepts"])

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        """Latents [B, draws, C, S / 4, S / 4] of unit variance, in an order of their own; captions' tokens [B, L]."""
        c = self.config
        rng = scenes.rng_for("sd-batch", c.seed, step)
        rows = rng.integers(c.captions, size=c.batch_size)
        order = rng.permuted(np.tile(np.arange(c.draws), (c.batch_size, 1)), axis=1)
        captions = ["" if rng.random() < c.caption_drop else self.captions[i] for i in rows]
        tokens = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        latents = self.latents[torch.from_numpy(rows)[:, None], torch.from_numpy(order)]
        return {"latents": latents.float() * self.vae.config.scaling_factor, "input_ids": tokens.input_ids}

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        clean_BKCHW = batch["latents"]
        x_BCHW = clean_BKCHW[:, 0]
        h_BLD = self.text_encoder(batch["input_ids"]).last_hidden_state
        t_B = self.timesteps(len(x_BCHW)).to(x_BCHW.device)
        noisy = self.scheduler.add_noise(x_BCHW, torch.randn_like(x_BCHW), t_B)
        share_B = self.scheduler.alphas_cumprod.to(t_B.device)[t_B]
        alpha_B, sigma_B = share_B.sqrt(), (1 - share_B).sqrt()
        # Without a caption too: what the pictures of a caption tell is right on average over the captions.
        mean_BCHW = expected(noisy, clean_BKCHW, alpha_B, sigma_B)
        a, s = alpha_B[:, None, None, None], sigma_B[:, None, None, None]
        v = self.scheduler.get_velocity(mean_BCHW, (noisy - a * mean_BCHW) / s, t_B)
        # Plain v loss: Min-SNR on top of v takes weight from the noisy steps, where class and layout are decided.
        return F.mse_loss(self.unet(noisy, t_B, h_BLD).sample.float(), v)

    def timesteps(self, n: int) -> torch.Tensor:
        """Timesteps [n], one from each of n equally likely parts of their distribution: less variance, same mean.

        A sampler's steps are even, so that 0.4 of them are; 0.3 lie above 850, where the words alone decide, and 0.3
        are logit-normal (2403.03206) around t = 450, where a blob becomes a drawing.
        """
        u_B = (torch.randperm(n) + torch.rand(n)) / n
        middle_B = torch.sigmoid(-0.2 + 0.9 * torch.special.ndtri(u_B.clamp(1e-4, 1 - 1e-4)))
        kind_B = torch.rand(n)
        share_B = torch.where(kind_B < 0.3, 0.85 + 0.15 * u_B, torch.where(kind_B < 0.7, u_B, middle_B))
        return (share_B * 1000).long().clamp(max=999)

    def save(self, folder: Path) -> None:
        StableDiffusionPipeline(
            vae=self.vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            unet=self.unet,
            scheduler=self.scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).save_pretrained(folder, max_shard_size="24MB")  # 12 MB each once halved
        counts = {name: number * COUNTED / self.config.captions for name, number in self.counts.items()}
        family.write_counts(folder / family.COUNTS, counts)

    def parts(self) -> list[Path]:
        trained = [self.config.vae, self.config.clip]
        return trained if all(part.is_dir() for part in trained) else [family.path("sd")]

    def load(self, folder: Path) -> None:
        """The UNet and the text encoder that learnt with it. UserError where those are no kin of this VAE and CLIP."""
        unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
        shapes = [{name: t.shape for name, t in model.state_dict().items()} for model in (unet, self.unet)]
        if shapes[0] != shapes[1]:
            raise UserError(f"the UNet in {folder} is of other sizes; train this one without --warm-start")
        self.unet.load_state_dict(unet.state_dict())
        if tokenizer.digest(CLIPTokenizer.from_pretrained(folder / "tokenizer")) != tokenizer.digest(self.tokenizer):
            raise UserError(f"the text encoder in {folder} reads other tokens; train this one without --warm-start")
        text_encoder = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", dtype=torch.float32)
        self.text_encoder.load_state_dict(text_encoder.state_dict())

    def save_image_encoder(self, folder: Path) -> None:
        """The tower beside the text encoder, for the TIUE."""
        self.image_encoder.save_pretrained(folder)
        image_processor(self.config.image_size).save_pretrained(folder)
