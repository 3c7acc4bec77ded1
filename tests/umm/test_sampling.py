"""Scales, intervals, schedules and the fast mode in the pipeline; the benchmark's figures."""

import argparse

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler, HeunDiscreteScheduler

from benchmarks import sampling
from tests.umm.conftest import make_umm, picture
from tests.umm.test_pipeline import dog, draw
from umm_bench.umm import Subject


def far(a, b):
    return np.abs(a - b).max()


@pytest.fixture
def unet_rows(umm):
    rows = []
    hook = umm.unet.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    yield rows
    hook.remove()


def test_sharing_changes_nothing(umm):
    settings = {"subjects": dog(), "alpha": 0.6, "num_images_per_prompt": 2, "output_type": "latent"}
    generators = [[torch.Generator("cpu").manual_seed(seed) for seed in (1, 2)] for _ in range(2)]
    with sampling.nothing_shared():
        naive = draw(umm, **settings, generator=generators[0])
    assert far(draw(umm, **settings, generator=generators[1]).numpy(), naive.numpy()) < 1e-4


def test_intervals_skip_rows(umm, unet_rows):
    settings = {"subjects": dog(), "alpha": 0.6, "num_inference_steps": 4}
    draw(umm, **settings, subject_interval=(0.5, 1.0))
    draw(umm, **settings, subject_interval=(0.0, 0.25))
    draw(umm, **settings, guidance_interval=(0.25, 0.75))
    assert unet_rows == [2, 2, 3, 3, 3, 2, 2, 2, 2, 3, 3, 2]


def test_an_interval_without_steps_is_no_subject(umm):
    assert far(draw(umm, subjects=dog(), subject_interval=(0.0, 0.0)), draw(umm)) < 1e-4


def test_schedules_are_lists_and_functions(umm):
    constant = draw(umm, subjects=dog(), alpha=0.6)
    assert far(draw(umm, subjects=dog(), alpha=[0.6, 0.6, 0.6]), constant) < 1e-6
    assert far(draw(umm, subjects=dog(alpha=lambda progress: 0.6)), constant) < 1e-6
    listed = draw(umm, subjects=dog(), alpha=[0.2, 0.6, 1.0])
    assert far(draw(umm, subjects=dog(), alpha=lambda progress: 0.2 + 0.4 * round(3 * progress)), listed) < 1e-5
    assert far(listed, constant) > 1e-3


def test_the_subject_has_a_scale_of_its_own(umm):
    same = draw(umm, subjects=dog(), guidance_scale=4.0)
    assert far(draw(umm, subjects=dog(), guidance_scale=4.0, subject_guidance_scale=4.0), same) < 1e-6
    assert far(draw(umm, subjects=dog(), guidance_scale=4.0, subject_guidance_scale=8.0), same) > 1e-3
    assert far(draw(umm, subjects=dog(), guidance_scale=4.0, subject_guidance_scale=0.0), draw(umm)) < 1e-4


def test_a_style_takes_the_place_of_a_subject(umm):
    prompt = "a dog in the style of <image>"
    style = [Subject(picture(9), "<image>")]
    assert far(draw(umm, prompt, subjects=style), draw(umm, prompt)) > 1e-3
    both = draw(umm, prompt, subjects=[*dog(), *style])
    assert far(both, draw(umm, prompt, subjects=style)) > 1e-3


def test_fast_is_near_and_takes_fewer_rows(umm, unet_rows):
    settings = {"subjects": dog(), "alpha": 0.6, "num_inference_steps": 12}
    exact = draw(umm, **settings)
    assert unet_rows == [3] * 12
    unet_rows.clear()
    fast = draw(umm, **settings, fast=True)
    assert unet_rows == [3, 2, 2, 2, 2, 2, 2, 1, 2, 1, 3, 1]
    # random weights are not smooth in time as trained ones are: here it only must be nearer than no subject
    without = draw(umm, **settings | {"alpha": 0.0})
    assert 0 < np.abs(fast - exact).mean() < np.abs(without - exact).mean()


@pytest.mark.parametrize(
    "scheduler", [HeunDiscreteScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler]
)
def test_any_scheduler(fresh_sd, tiny_image_encoder, scheduler):
    sd = fresh_sd()
    sd.scheduler = scheduler.from_config(sd.scheduler.config)
    pipe = make_umm(sd, tiny_image_encoder)
    assert far(draw(pipe, subjects=dog(), alpha=0.0), draw(sd)) < 1e-4
    settings = {"subjects": dog(), "alpha": [0.5, 0.7, 0.9], "num_inference_steps": 4}
    for fast in (False, True):
        assert np.isfinite(draw(pipe, **settings, fast=fast)).all()


def test_the_benchmark_times_what_it_says(umm, monkeypatch):
    monkeypatch.setattr(sampling, "_load", lambda size, dtype: umm)
    monkeypatch.setattr(sampling, "PROMPTS", ("a {} on snow",))
    args = argparse.Namespace(
        size="sd15",
        steps=1,
        batch=1,
        alpha=0.7,
        guidance_scale=4.0,
        repeats=1,
        dtype="float32",
        clock="cpu",
        naive=True,
    )
    figures = {figure.name: figure for figure in sampling.figures(args)}
    assert figures["sampling.exact_vs_sd"].bar == 1.33 and figures["sampling.fast_vs_sd"].bar == 0.80
    assert all(figure.value > 0 for figure in figures.values() if figure.name.endswith("_vs_sd"))
    assert figures["sampling.exact_vs_naive_pixel"].value < 0.1


def test_the_benchmark_refuses_an_alpha_without_a_third_branch(capsys):
    assert sampling.main(["--alpha", "1"]) == 2
    assert "two branches" in capsys.readouterr().err
