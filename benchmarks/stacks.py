"""The models that the benchmarks run: the mini base, or Stable Diffusion 1.5's exact shapes with random weights."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import (
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from umm_bench.base import load_base
from umm_bench.mini import family
from umm_bench.umm import UMMPipeline
from umm_bench.umm_method import load_umm

SIZES = ("mini", "sd15")


def load_stack(size: str, device: str) -> UMMPipeline:
    """A UMMPipeline without a TIUE, float32, on `device`; "sd15" is random and needs no download."""
    pipe = load_umm(load_base("mini"), None) if size == "mini" else _sd15()
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def sd15_parts() -> dict[str, torch.nn.Module]:
    """UNet, VAE and text encoder of Stable Diffusion 1.5's exact shapes, with random weights."""
    text = CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
    )
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        sample_size=512,
    )
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    return {"unet": unet, "vae": vae, "text_encoder": CLIPTextModel(text)}


def _sd15() -> UMMPipeline:
    torch.manual_seed(0)
    # the mini tokenizer's ids lie within CLIP's vocabulary; speed does not depend on which words they are
    tokenizer = CLIPTokenizer.from_pretrained(family.path("sd") / "tokenizer", model_max_length=77)
    vision = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=224,
        patch_size=14,
        projection_dim=768,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    sd = StableDiffusionPipeline(
        **{name: part.eval() for name, part in sd15_parts().items()},
        tokenizer=tokenizer,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    encoder = CLIPVisionModelWithProjection(vision).eval()
    return UMMPipeline.from_pipe(sd, image_encoder=encoder, feature_extractor=CLIPImageProcessorPil())
