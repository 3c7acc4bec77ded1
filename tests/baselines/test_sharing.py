"""What is shared between subjects, methods and points of a curve, and what must not be."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file

from baselines import dreambooth, textual_inversion
from tests.baselines.test_baselines import PAIR_PROMPT, PROMPT, make, pixels, set_up
from umm_bench.base import Base
from umm_bench.methods import Case, Subject

TRAINED = ["textual_inversion", "dreambooth", "dreambooth_lora", "custom_diffusion"]


@pytest.fixture
def other(tmp_path: Path) -> Subject:
    Image.new("RGB", (16, 16), (250, 10, 10)).save(tmp_path / "red.png")
    return Subject("cup", "cup", (tmp_path / "red.png",))


def weights_in(directory: Path) -> dict[str, torch.Tensor]:
    """All tensors saved below a finished setup, by file and name."""
    files = sorted(directory.rglob("*.safetensors"))
    return {f"{file.name}/{name}": tensor for file in files for name, tensor in load_file(file).items()}


def assert_same(one: Path, two: Path) -> None:
    ours, theirs = weights_in(one), weights_in(two)
    assert ours.keys() == theirs.keys() and ours
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.mark.parametrize("name", TRAINED)
def test_one_subject_leaves_no_trace_in_plain_sd_or_in_the_next(
    name: str, base: Base, subject: Subject, other: Subject, tmp_path: Path
) -> None:
    sd, method = make("sd", base), make(name, base)
    before = pixels(sd.generate([None], Case((other,)), PROMPT, [3]))
    for who in (subject, other):
        state = set_up(method, who, tmp_path / "after" / who.id)
        method.generate([state], Case((who,)), PROMPT, [3])
    assert np.array_equal(before, pixels(sd.generate([None], Case((other,)), PROMPT, [3])))
    fresh = make(name, Base("fresh", base.location))
    set_up(fresh, other, tmp_path / "fresh" / "cup")
    assert_same(tmp_path / "after" / "cup", tmp_path / "fresh" / "cup")


def test_class_images_are_made_once_for_all_subjects_and_methods(
    base: Base, subject: Subject, other: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    draw = dreambooth.draw

    def noted(pipe: StableDiffusionPipeline, text: str, seeds: list[int], sampler: object) -> list[Image.Image]:
        drawn.extend([text] * len(seeds))
        return draw(pipe, text, seeds, sampler)

    monkeypatch.setattr(dreambooth, "draw", noted)
    prior = {"num_class_images": 2, "class_inference_steps": 2}
    set_up(make("dreambooth", base, **prior), subject, tmp_path / "a")
    assert drawn == ["a red fox"] * 2
    set_up(make("dreambooth", base, **prior), replace(subject, id="another"), tmp_path / "b")
    set_up(make("dreambooth_lora", base, **prior), subject, tmp_path / "c")
    assert len(drawn) == 2
    set_up(make("dreambooth", base, **{**prior, "num_class_images": 3}), subject, tmp_path / "d")
    assert drawn == ["a red fox"] * 3, "only the third is new"
    set_up(make("dreambooth", base, **prior), other, tmp_path / "e")
    set_up(make("dreambooth", base, **{**prior, "class_inference_steps": 1}), subject, tmp_path / "f")
    assert drawn[3:] == ["a cup"] * 2 + ["a red fox"] * 2, "another class, and another sampler"
    method = make("dreambooth", base, **prior)
    kept = pixels(method.class_images(subject, tmp_path))
    assert len(drawn) == 7 and np.array_equal(kept, pixels(method.class_images(subject)))


@pytest.mark.parametrize("name", TRAINED)
def test_the_points_of_a_curve_are_of_one_training(
    name: str, base: Base, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = textual_inversion if name == "textual_inversion" else dreambooth
    steps: list[int] = []
    errors = module.denoising_errors
    monkeypatch.setattr(module, "denoising_errors", lambda *args: steps.append(1) or errors(*args))
    curve, seconds = (2, 3, 6), []
    for point in curve:
        set_up(make(name, base, steps=point, curve=curve), subject, tmp_path / "curve" / str(point))
        record = json.loads((tmp_path / "curve" / str(point) / "state.json").read_text())
        seconds.append(record["seconds_before"])
        assert record["steps"] == point
    assert len(steps) == 6
    assert seconds[0] == 0 < seconds[1] < seconds[2], "each point has cost all that came before it"
    for point in curve:
        set_up(make(name, base, steps=point), subject, tmp_path / "alone" / str(point))
        assert_same(tmp_path / "curve" / str(point), tmp_path / "alone" / str(point))
    assert sorted(path.name for path in (tmp_path / "curve").iterdir() if "class" not in path.name) == ["2", "3", "6"]


def test_a_point_that_the_curve_has_passed_is_trained_anew(base: Base, subject: Subject, tmp_path: Path) -> None:
    def point(steps: int, folder: str) -> Path:
        set_up(make("textual_inversion", base, steps=steps, curve=(2, 4, 6)), subject, tmp_path / "curve" / folder)
        return tmp_path / "curve" / folder

    first = point(2, "2")
    point(4, "4")
    again = point(2, "2 again")
    assert_same(first, again)
    assert json.loads((again / "state.json").read_text())["seconds_before"] == 0


def test_curves_of_two_subjects_do_not_mix(base: Base, subject: Subject, other: Subject, tmp_path: Path) -> None:
    for point in (2, 4):
        for who in (subject, other):
            method = make("textual_inversion", base, steps=point, curve=(2, 4))
            set_up(method, who, tmp_path / "curve" / f"{who.id}{point}")
    set_up(make("textual_inversion", base, steps=4), other, tmp_path / "alone")
    assert_same(tmp_path / "curve" / "cup4", tmp_path / "alone")


def test_two_adapters_are_summed(base: Base, subject: Subject, other: Subject, tmp_path: Path) -> None:
    """A layer under both gives the base's output, and each adapter's own difference."""
    config = {"steps": 10, "learning_rate": 3e-2, "save_dtype": "float32", "identifiers": ("sks", "pll", "zdr")}
    method = make("dreambooth_lora", base, **config)
    adapters = [set_up(method, who, tmp_path / who.id) for who in (subject, other)]
    x_BLD = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(0))

    def output(*some: dict[str, torch.Tensor]) -> torch.Tensor:
        unet = method.with_adapters(some).unet if some else base.pipeline().unet
        with torch.no_grad():
            return unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1.to_q(x_BLD)

    plain, one, two, both = output(), output(adapters[0]), output(adapters[1]), output(*adapters)
    assert (one - plain).abs().max() > 1e-3 and (two - plain).abs().max() > 1e-3
    assert torch.allclose(both - plain, (one - plain) + (two - plain), atol=1e-6)


def test_a_pair_is_drawn_with_each_subjects_own_word(
    base: Base, subject: Subject, other: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = make("dreambooth_lora", base, identifiers=("sks", "pll", "zdr"))
    seen: list[str] = []
    monkeypatch.setattr(method, "with_adapters", lambda adapters: None)
    monkeypatch.setattr("baselines.dreambooth_lora.draw", lambda pipe, text, *rest: seen.append(text) or [])
    pair = Case((subject, other))
    method.generate([{}, {}], pair, PAIR_PROMPT, [0])
    alone = [method.words(method.config, Case((who,)))[0] for who in (subject, other)]
    assert seen == [f"a {alone[1]} beside a {alone[0]}"]


def test_an_adapter_is_what_diffusers_loads(base: Base, subject: Subject, tmp_path: Path) -> None:
    method = make("dreambooth_lora", base, steps=10, learning_rate=3e-2)
    state = set_up(method, subject, tmp_path / "state")
    ours = pixels(method.generate([state], Case((subject,)), PROMPT, [3]))
    theirs = StableDiffusionPipeline.from_pretrained(base.location, safety_checker=None)
    theirs.load_lora_weights(tmp_path / "state")
    generator = [torch.Generator().manual_seed(3)]
    theirs.set_progress_bar_config(disable=True)
    text = "a sks red fox on a blue background"
    image = theirs(text, num_inference_steps=2, guidance_scale=3.0, generator=generator)
    assert np.abs(ours - pixels(image.images)).max() <= 1


def test_all_vectors_of_a_word_reach_the_picture(base: Base, subject: Subject, tmp_path: Path) -> None:
    """Of three, changing any one changes the text states; and diffusers alone loads the file."""
    method = make("textual_inversion", base, num_vectors=3)
    rows_VD = set_up(method, subject, tmp_path / "state")
    theirs = StableDiffusionPipeline.from_pretrained(base.location, safety_checker=None)
    theirs.load_textual_inversion(tmp_path / "state", weight_name="learned_embeds.safetensors")
    text = "a <umm-subject> on a blue background"

    def states(pipe: StableDiffusionPipeline) -> torch.Tensor:
        with torch.no_grad():
            return pipe.encode_prompt(text, pipe.device, 1, False)[0]

    ours = states(method.knowing([rows_VD], ["<umm-subject>"]))
    assert torch.allclose(ours, states(theirs), atol=1e-6)
    for vector in range(3):
        changed = rows_VD.clone()
        changed[vector] += torch.linspace(-1, 1, 16)  # not the same everywhere, which a layer norm takes out
        assert not torch.allclose(ours, states(method.knowing([changed], ["<umm-subject>"])), atol=1e-3)


def test_a_trained_text_encoder_draws_beside_its_unet_and_the_bases_stays(
    base: Base, subject: Subject, tmp_path: Path
) -> None:
    method = make("dreambooth", base, steps=4, learning_rate=1e-2, train_text_encoder=True, save_dtype="float32")
    shared = {name: weight.clone() for name, weight in base.pipeline().text_encoder.state_dict().items()}
    pipe = set_up(method, subject, tmp_path / "state")
    theirs = type(pipe.text_encoder).from_pretrained(tmp_path / "state" / "text_encoder")
    trained = pipe.text_encoder.state_dict()
    assert all(torch.equal(weight, trained[name]) for name, weight in theirs.state_dict().items())
    assert all((weight - shared[name]).abs().max() > 1e-4 for name, weight in trained.items() if "mlp" in name)
    assert all(torch.equal(weight, shared[name]) for name, weight in base.pipeline().text_encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in base.pipeline().text_encoder.parameters())


def test_a_saved_adapter_computes_what_was_trained(base: Base, subject: Subject, tmp_path: Path) -> None:
    method = make("dreambooth_lora", base, steps=10, learning_rate=3e-2, rank=3, save_dtype="float32")
    case, generator = Case((subject,)), torch.Generator().manual_seed(0)
    trained = method.trainable_unet(case)
    list(method.train(case, trained))
    loaded = method.with_adapters([set_up(method, subject, tmp_path / "state")]).unet
    z_BCHW, h_BLD = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 48, 16, generator=generator)
    with torch.no_grad():
        ours, theirs, plain = (
            unet(z_BCHW, 500, encoder_hidden_states=h_BLD).sample for unet in (trained, loaded, base.pipeline().unet)
        )
    assert torch.allclose(ours, theirs, atol=1e-5) and (ours - plain).abs().max() > 1e-3
