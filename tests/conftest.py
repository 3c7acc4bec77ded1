"""Tiny random models in the shape of Stable Diffusion 1.x, built from configurations: nothing is downloaded."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
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

from tests.reports.browsing import chromium

WORDS = ["a", "an", "the", "dog", "cat", "on", "in", "of", "and", "snow", "beach", "red", "small", "fox", "blue"]
LENGTH = 24
TEXT_DIM = 32
IMAGE_DIM = 24
OUTCOMES: dict[str, dict[str, int]] = {}  # of the fuzz: test -> what became of its inputs -> how many


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One for all tests: Playwright runs once in a process."""
    with chromium() as started:
        yield started


def make_tokenizer() -> CLIPTokenizer:
    """A CLIP BPE whose vocabulary is the alphabet and WORDS; any other word is spelt, letter by letter."""
    alphabet = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    tokens = alphabet + [letter + "</w>" for letter in alphabet]
    merges = []
    for word in WORDS:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces[:2] = [pieces[0] + pieces[1]]
            tokens.append(pieces[0])
    tokens = list(dict.fromkeys([*tokens, "<|startoftext|>", "<|endoftext|>"]))
    vocab = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=list(dict.fromkeys(merges)), model_max_length=LENGTH)


def make_sd(prediction_type: str = "epsilon", seed: int = 0) -> StableDiffusionPipeline:
    """A random Stable Diffusion for 32 px images: 8x8 latents, 4x down."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    text_config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_DIM,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        # random weights of the usual size hardly react to a word
        initializer_factor=5.0,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=TEXT_DIM,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=32,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    pipe = StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=CLIPTextModel(text_config).eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def make_image_encoder(seed: int = 1) -> tuple[CLIPVisionModelWithProjection, CLIPImageProcessorPil]:
    """A random CLIP vision tower for 32 px images, and its image processor."""
    torch.manual_seed(seed)
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
        projection_dim=IMAGE_DIM,
        initializer_factor=5.0,
    )
    size = {"height": 32, "width": 32}
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=size)
    return CLIPVisionModelWithProjection(config).eval(), processor


@pytest.fixture(scope="session")
def tiny_sd() -> StableDiffusionPipeline:
    """Shared by the whole session; treat it as read-only."""
    return make_sd()


@pytest.fixture
def fresh_sd() -> Callable[..., StableDiffusionPipeline]:
    """`fresh_sd(prediction_type=..., seed=...)`: a pipeline of the test's own."""
    return make_sd


@pytest.fixture(scope="session")
def tiny_image_encoder() -> tuple[CLIPVisionModelWithProjection, CLIPImageProcessorPil]:
    """Shared by the whole session; treat it as read-only."""
    return make_image_encoder()


@pytest.fixture(scope="session")
def tiny_tokenizer() -> CLIPTokenizer:
    return make_tokenizer()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Gathers the fuzz's outcomes where its tests report to: with several processes, not where they ran."""
    if report.when == "teardown":
        outcomes = dict(report.user_properties).get("outcomes")
        if outcomes:
            OUTCOMES[report.nodeid.rpartition("::")[2]] = dict(outcomes)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if OUTCOMES:
        terminalreporter.section("inputs tried, by outcome")
    for name, counts in OUTCOMES.items():
        shown = ", ".join(f"{count} {outcome}" for outcome, count in list(counts.items())[:8])
        terminalreporter.write_line(f"{name}: {sum(counts.values())} tried: {shown}")
