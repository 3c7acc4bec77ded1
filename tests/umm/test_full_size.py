"""The laws on Stable Diffusion 1.5's exact sizes with random weights: `pytest -m slow tests/umm` (7 GB of memory)."""

import numpy as np
import pytest
import torch

from benchmarks.sampling import nothing_shared
from benchmarks.stacks import load_stack
from tests.umm.conftest import picture
from umm_bench.umm import TIUE, Subject, UMMPipeline

pytestmark = pytest.mark.slow

PROMPT = "a dog on a beach"


@pytest.fixture(scope="module")
def pipe():
    pipe = UMMPipeline.from_pipe(load_stack("sd15", "cpu"), tiue=TIUE(768, 768, word_std=1.0))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, *subjects, **settings):
    # 8x8 latents: the sizes of the networks are what is tested
    settings = {"num_inference_steps": 2, "height": 64, "width": 64, "output_type": "latent"} | settings
    if subjects:
        settings |= {"subjects": subjects}
    return pipe(PROMPT, generator=torch.Generator("cpu").manual_seed(0), **settings).images.numpy()


def dog(alpha):
    return Subject(picture(5), "dog", alpha)


def test_the_sizes_are_stable_diffusion_15(pipe):
    millions = {name: round(sum(p.numel() for p in getattr(pipe, name).parameters()) / 1e6) for name in
                ("unet", "vae", "text_encoder", "image_encoder")}  # fmt: skip
    assert millions == {"unet": 860, "vae": 84, "text_encoder": 123, "image_encoder": 304}


def test_alpha_zero_is_stable_diffusion(pipe):
    from diffusers import StableDiffusionPipeline

    names = ("vae", "text_encoder", "tokenizer", "unet", "scheduler", "safety_checker", "feature_extractor")
    sd = StableDiffusionPipeline(**{name: pipe.components[name] for name in names}, requires_safety_checker=False)
    expected = draw(sd)
    assert np.abs(draw(pipe, dog(0.0)) - expected).max() < 1e-4
    assert np.abs(draw(pipe, dog(0.9)) - expected).max() > 1e-4


def test_sharing_changes_nothing_and_alpha_one_is_two_branches(pipe):
    rows = []
    hook = pipe.unet.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    exact = draw(pipe, dog(0.6))
    with nothing_shared():
        assert np.abs(draw(pipe, dog(0.6)) - exact).max() < 1e-4
    draw(pipe, dog(1.0))
    hook.remove()
    assert rows == [3] * 4 + [2] * 2
