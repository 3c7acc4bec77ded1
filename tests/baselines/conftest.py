"""A whole Stable Diffusion pipeline of a few thousand random weights, and a subject to learn."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from umm_bench.base import Base
from umm_bench.methods import Subject


def tiny_tokenizer() -> CLIPTokenizer:
    """Single letters, so that every noun takes several tokens, two rare words, and one more that ends a longer one."""
    letters = "abcdefghijklmnopqrstuvwxyz<>-_,."
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    merges = [("s", "k"), ("sk", "s</w>"), ("p", "l"), ("pl", "l</w>"), ("z", "d"), ("zd", "r</w>"), ("a", "zdr</w>")]
    vocabulary = {word: i for i, word in enumerate([*words, *("".join(pair) for pair in merges)])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=48)


@pytest.fixture(scope="session", params=["epsilon", "v_prediction"])
def tiny_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    pipe = StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=[8, 8],
            down_block_types=["DownEncoderBlock2D"] * 2,
            up_block_types=["UpDecoderBlock2D"] * 2,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=16,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=48,
                projection_dim=16,
                bos_token_id=0,
                eos_token_id=1,
                pad_token_id=1,
            )
        ),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            sample_size=8,
            block_out_channels=[8, 16],
            down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"],
            up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"],
            layers_per_block=1,
            norm_num_groups=4,
            attention_head_dim=4,
            cross_attention_dim=16,
        ),
        scheduler=DDIMScheduler(prediction_type=request.param, clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    folder = tmp_path_factory.mktemp(request.param) / "sd"
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture
def base(tiny_folder: Path) -> Base:
    return Base("tiny", str(tiny_folder))


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    """Two 20 x 16 pictures of one pattern, the second with transparency."""
    pixels = np.random.default_rng(0).integers(0, 255, (16, 20, 4), dtype=np.uint8)
    Image.fromarray(pixels[..., :3]).save(tmp_path / "00.png")
    Image.fromarray(pixels).save(tmp_path / "01.png")
    return Subject("fox", "red fox", (tmp_path / "00.png", tmp_path / "01.png"), "live")
