"""The generator: a UNet on cached latents, v-prediction, saved as a complete `StableDiffusionPipeline`."""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextModel, CLIPTokenizer

from umm_bench.errors import UserError
from umm_bench.mini import family
from umm_bench.mini.recipes import tokenizer
from umm_bench.mini.recipes.sd_data import COUNTED, SDConfig, cached_scenes
from umm_bench.mini.world import scenes
from umm_bench.umm.encoded import weights_digest


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

    Words also scale and shift the channels of every block, through the time embedding (as DeepFloyd IF adds them to
    it): what a concept looks like is learnt in a fraction of the samples that cross-attention alone needs.
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
        attention_head_dim=tuple(max(1, width // 32) for width in config.channels),  # diffusers: numbers of heads
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
        resnet_time_scale_shift="scale_shift",
        norm_num_groups=16,
    )


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
            self.text_encoder = CLIPTextModel.from_pretrained(config.clip, dtype=torch.float32)
        elif config.image_size != 64 or len(missing) == 1:
            raise UserError(f"train both vae and clip at {config.image_size} px first: {missing[0]} is not there")
        else:  # a clone has the shipped family only: go on with its VAE and CLIP
            sd = family.path("sd")
            self.vae = AutoencoderKL.from_pretrained(sd, subfolder="vae")
            self.tokenizer = CLIPTokenizer.from_pretrained(sd / "tokenizer")
            self.text_encoder = CLIPTextModel.from_pretrained(sd / "text_encoder", dtype=torch.float32)
        self.vae.eval().requires_grad_(False)
        vocabulary = tokenizer.digest(self.tokenizer)  # a checkpoint has the text encoder, not its tokenizer
        self.config = dataclasses.replace(config, encoder=_digest(self.vae.encoder), vocabulary=vocabulary)
        torch.manual_seed(config.seed)
        self.unet = build(config, self.vae.config.latent_channels, self.text_encoder.config.hidden_size)
        self.unet.set_attn_processor(AttnProcessor())  # as in clip.py, plain products
        # The text encoder goes on learning with the UNet, as LDM's did (2112.10752).
        self.module = torch.nn.ModuleDict({"unet": self.unet, "text_encoder": self.text_encoder})
        self.scheduler = scheduler()
        # The posterior is narrow (the KL weight is 1e-6), so its mean stands for a draw.
        self.latents, texts = cached_scenes(self.config, self.vae)
        # SD's convention: unit variance over all channels, one number in the VAE's configuration.
        self.scale = round(1.0 / self.latents.float().std().item(), 5)
        self.vae.register_to_config(scaling_factor=self.scale)
        captions = [*(text["caption"] for text in texts), ""]
        self.tokens = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        self.counts: Counter[str] = Counter(name for text in texts for name in text["concepts"])

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        """Rows [B] of the latents, the draws of each in an order of their own [B, draws], captions' tokens [B, L]."""
        c = self.config
        rng = scenes.rng_for("sd-batch", c.seed, step)
        rows = rng.integers(c.captions, size=c.batch_size)
        order = rng.permuted(np.tile(np.arange(c.draws), (c.batch_size, 1)), axis=1)
        said = np.where(rng.random(c.batch_size) < c.caption_drop, c.captions, rows)
        return {"rows": torch.from_numpy(rows), "order": torch.from_numpy(order), "input_ids": self.tokens[said]}

    def pictures(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """A batch's latents [B, draws, C, S / 4, S / 4], of unit variance, where the batch is."""
        self.latents = self.latents.to(batch["rows"].device)  # once: a graphics processor has room for all of them
        drawn = self.latents[batch["rows"][:, None], batch["order"]]
        return drawn.float() * self.scale

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        clean_BKCHW = self.pictures(batch)
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
