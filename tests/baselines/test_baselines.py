"""The laws that all three baselines keep, on a pipeline of random weights."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image

from baselines import finetuning
from baselines.dreambooth import DreamBooth, DreamBoothConfig, class_prompt, instance_prompt
from baselines.finetuning import (
    cache_latents,
    denoising_errors,
    image_size,
    read_references,
    training_schedule,
)
from baselines.stable_diffusion import StableDiffusion, StableDiffusionConfig, draw
from baselines.textual_inversion import TextualInversion, TextualInversionConfig
from umm_bench.base import Base
from umm_bench.errors import UserError
from umm_bench.methods import METHODS, Generation, Prompt, Subject

GENERATION = Generation(num_inference_steps=2, guidance_scale=3.0)
PROMPT = Prompt("p0", "a {subject} on a blue background", "recontextualise")
CONFIGS = {
    "sd": StableDiffusionConfig(),
    "textual_inversion": TextualInversionConfig(steps=3, batch_size=2),
    "dreambooth": DreamBoothConfig(steps=3, num_class_images=2, class_inference_steps=2),
    "lora": DreamBoothConfig(steps=3, num_class_images=0, lora_rank=2),
}
CLASSES = {
    "sd": StableDiffusion,
    "textual_inversion": TextualInversion,
    "dreambooth": DreamBooth,
    "lora": DreamBooth,
}


def make(name: str, base: Base, **changes):
    return CLASSES[name](base, replace(CONFIGS[name], **changes), GENERATION)


def fingerprint(pipe: StableDiffusionPipeline) -> str:
    """Every weight, gradient flag, word and setting of the shared base."""
    whole = hashlib.sha256()
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        for key, tensor in part.state_dict().items():
            whole.update(key.encode() + tensor.numpy().tobytes())
        whole.update(str([(p.requires_grad, p.grad is None) for p in part.parameters()]).encode())
    whole.update(str(sorted(pipe.tokenizer.get_vocab().items())).encode())
    return whole.hexdigest()


def pixels(images: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image, dtype=np.int16) for image in images])


@pytest.mark.parametrize("name", CONFIGS)
def test_the_shared_base_is_untouched(name: str, base: Base, subject: Subject, tmp_path: Path) -> None:
    before = fingerprint(base.pipeline())
    method = make(name, base)
    state = method.setup(subject, tmp_path / "state")
    method.generate(state, subject, PROMPT, [1])
    assert fingerprint(base.pipeline()) == before


@pytest.mark.parametrize("name", CONFIGS)
def test_a_batch_equals_its_members(name: str, base: Base, subject: Subject, tmp_path: Path) -> None:
    method = make(name, base)
    state = method.setup(subject, tmp_path / "state")
    together = pixels(method.generate(state, subject, PROMPT, [5, 2**62 + 1]))
    alone = pixels([method.generate(state, subject, PROMPT, [seed])[0] for seed in (5, 2**62 + 1)])
    assert np.abs(together - alone).max() <= 1
    assert np.abs(together[0] - together[1]).max() > 1


@pytest.mark.parametrize("name", ["textual_inversion", "dreambooth", "lora"])
def test_reload_draws_the_same_without_training(
    name: str, base: Base, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "state"
    first = make(name, base)
    images = first.generate(first.setup(subject, directory), subject, PROMPT, [7])
    again = make(name, base)
    monkeypatch.setattr(again, "train", lambda *_: pytest.fail("trained again"))
    assert np.array_equal(pixels(images), pixels(again.generate(again.setup(subject, directory), subject, PROMPT, [7])))
    assert len(json.loads((directory / "state.json").read_text())["losses"]) == 3
    assert not list(directory.glob("*.bin"))


@pytest.mark.parametrize("name", ["textual_inversion", "dreambooth", "lora"])
def test_training_is_a_function_of_the_subject(name: str, base: Base, subject: Subject, tmp_path: Path) -> None:
    losses = []
    for directory, who in (("a", subject), ("b", subject), ("c", replace(subject, id="other"))):
        torch.manual_seed(len(losses))  # the global generator must not matter
        make(name, base).setup(who, tmp_path / directory)
        losses.append(json.loads((tmp_path / directory / "state.json").read_text())["losses"])
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def cut_off(method, subject: Subject, directory: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """A setup that saves whenever it can, and is killed in the step after `after`."""
    step = finetuning.Progress.step

    def killed(progress, loss):
        if len(progress.losses) == after:
            raise KeyboardInterrupt
        progress._pause = 0.0
        step(progress, loss)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(finetuning.Progress, "step", killed)
        method.setup(subject, directory)


@pytest.mark.parametrize("name", ["textual_inversion", "dreambooth", "lora"])
def test_a_killed_fine_tune_goes_on_as_if_nothing_had_been(
    name: str, base: Base, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, directory = make(name, base, steps=6), tmp_path / "state"
    whole = pixels(method.generate(method.setup(subject, tmp_path / "whole"), subject, PROMPT, [7]))
    cut_off(method, subject, directory, monkeypatch, after=4)
    assert not directory.exists() and (tmp_path / "state.unfinished").is_dir()
    before = json.loads((tmp_path / "state.unfinished" / "state.json").read_text())["seconds"]
    denoised = []
    errors = finetuning.denoising_errors
    monkeypatch.setattr(f"baselines.{method.name}.denoising_errors", lambda *args: denoised.append(1) or errors(*args))
    monkeypatch.setattr("baselines.dreambooth.draw", lambda *args: pytest.fail("class images drawn again"))
    state = method.setup(subject, directory)
    monkeypatch.undo()
    assert len(denoised) == 2, "four of the six steps were done"
    records = [json.loads((tmp_path / of / "state.json").read_text()) for of in ("whole", "state")]
    assert records[0]["losses"] == records[1]["losses"]
    assert records[0]["seconds_before"] == 0 and records[1]["seconds_before"] == before > 0
    assert np.array_equal(whole, pixels(method.generate(state, subject, PROMPT, [7])))
    assert not (tmp_path / "state.unfinished").exists()


def test_a_full_disk_costs_the_saves_not_the_fine_tune(
    base: Base, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetuning.shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    method = make("textual_inversion", base, steps=6)
    cut_off(method, subject, tmp_path / "state", monkeypatch, after=4)
    assert not list((tmp_path / "state.unfinished").glob("*.safetensors"))
    method.setup(subject, tmp_path / "state")
    assert len(json.loads((tmp_path / "state" / "state.json").read_text())["losses"]) == 6


def test_a_fine_tune_of_other_settings_does_not_go_on_from_it(
    base: Base, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(make("textual_inversion", base, steps=6), subject, tmp_path / "state", monkeypatch, after=4)
    make("textual_inversion", base, steps=5).setup(subject, tmp_path / "state")
    record = json.loads((tmp_path / "state" / "state.json").read_text())
    make("textual_inversion", base, steps=5).setup(subject, tmp_path / "other")
    assert record["losses"] == json.loads((tmp_path / "other" / "state.json").read_text())["losses"]
    assert record["seconds_before"] == 0


@pytest.mark.parametrize("name", ["textual_inversion", "dreambooth", "lora"])
def test_a_diverged_fine_tune_is_refused(name: str, base: Base, subject: Subject, tmp_path: Path) -> None:
    method = make(name, base, learning_rate=float("inf"))
    with pytest.raises(UserError, match=f"{method.name} of fox: the .* became nan at step 2; .*--set {method.name}.le"):
        method.setup(subject, tmp_path / "state")
    assert not (tmp_path / "state").exists()


def evaluate(base: Base, subject: Subject, unet, h_1LD: torch.Tensor) -> float:
    """The loss at 64 fixed timesteps and noises."""
    pipe = base.pipeline()
    latents = cache_latents(pipe.vae, read_references(subject.references), image_size(pipe), "none")
    generator = torch.Generator().manual_seed(0)
    z = latents.sample(torch.arange(64) % len(latents), generator)
    with torch.no_grad():
        errors = denoising_errors(unet, training_schedule(pipe), z, h_1LD.expand(64, -1, -1), generator)
    return errors.mean().item()


@pytest.mark.parametrize(("name", "rate"), [("dreambooth", 3e-3), ("lora", 3e-2)])
def test_dreambooth_lowers_the_subjects_loss(name: str, rate: float, base: Base, subject: Subject) -> None:
    method = make(name, base, steps=60, learning_rate=rate, batch_size=4)
    unet = method.trainable_unet(subject)
    h = method.condition("a sks red fox", 1)
    before = evaluate(base, subject, unet, h)
    assert before == pytest.approx(evaluate(base, subject, base.pipeline().unet, h), abs=1e-6)
    assert [step for step, _ in method.train(subject, unet)] == list(range(60))
    assert evaluate(base, subject, unet, h) < 0.97 * before


def test_textual_inversion_lowers_the_subjects_loss(base: Base, subject: Subject) -> None:
    method = make("textual_inversion", base, steps=60, learning_rate=5e-2, batch_size=8)
    rows = method.initial_rows(subject)
    ids = base.pipeline().tokenizer("red fox", add_special_tokens=False).input_ids
    assert len(ids) == 6
    table = base.pipeline().text_encoder.get_input_embeddings().weight
    assert torch.allclose(rows[0], table[ids].mean(0))

    def loss() -> float:
        pipe = method.copied_pipeline()
        pipe.load_textual_inversion({"<umm-subject>": rows.detach()})
        h, _ = pipe.encode_prompt("a <umm-subject>", pipe.device, 1, False)
        return evaluate(base, subject, pipe.unet, h.detach())

    before = loss()
    for _ in method.train(subject, rows):
        pass
    assert loss() < before - 1e-4


@pytest.mark.parametrize("vectors", [1, 3])
def test_only_new_rows_are_learnt(vectors: int, base: Base, subject: Subject, tmp_path: Path) -> None:
    method = make("textual_inversion", base, num_vectors=vectors)
    initial = method.initial_rows(subject)
    pipe = method.setup(subject, tmp_path / "state")
    shared = base.pipeline().text_encoder.state_dict()
    for key, tensor in pipe.text_encoder.state_dict().items():
        if "token_embedding" not in key:
            assert torch.equal(tensor, shared[key]), key
            continue
        assert torch.equal(tensor[: len(shared[key])], shared[key])
        assert len(tensor) == len(shared[key]) + vectors
        assert (tensor[len(shared[key]) :] - initial).abs().min(1).values.max() > 0
    assert pipe.unet is base.pipeline().unet
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == [
        "learned_embeds.safetensors",
        "state.json",
    ]


def test_a_taken_placeholder_is_refused(base: Base, subject: Subject, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="already a word"):
        make("textual_inversion", base, placeholder="f").setup(subject, tmp_path / "state")


def test_dreambooth_saves_a_unet_that_diffusers_loads(base: Base, subject: Subject, tmp_path: Path) -> None:
    make("dreambooth", base).setup(subject, tmp_path / "state")
    unet = UNet2DConditionModel.from_pretrained(tmp_path / "state" / "unet")
    shared = base.pipeline().unet.state_dict()
    assert any(not torch.allclose(tensor, shared[key], atol=1e-3) for key, tensor in unet.state_dict().items()) or any(
        not torch.equal(tensor, shared[key].half().float()) for key, tensor in unet.state_dict().items()
    )


def test_lora_off_equals_base(base: Base, subject: Subject, tmp_path: Path) -> None:
    method = make("lora", base, steps=20, learning_rate=3e-2, save_dtype="float32")
    tuned = method.setup(subject, tmp_path / "state")
    plain = pixels(draw(base.pipeline(), "a sks red fox", [3], GENERATION))
    assert not np.array_equal(pixels(draw(tuned, "a sks red fox", [3], GENERATION)), plain)
    tuned.disable_lora()
    assert np.array_equal(pixels(draw(tuned, "a sks red fox", [3], GENERATION)), plain)


def test_prior_images_belong_to_the_class(base: Base, subject: Subject) -> None:
    method = make("dreambooth", base, num_class_images=10)
    images = pixels(method.class_images(subject))
    assert len(images) == 10
    assert np.abs(images[0] - images[9]).max() > 1
    assert np.array_equal(images, pixels(method.class_images(replace(subject, id="another fox"))))


def test_words(base: Base, subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each method puts its own words in the same template; a style's phrase is used as it is."""
    style = replace(subject, class_noun="ink drawing", kind="style")
    assert instance_prompt(subject, "sks") == "a sks red fox" and class_prompt(subject) == "a red fox"
    assert instance_prompt(style, "sks") == "sks ink drawing" and class_prompt(style) == "ink drawing"
    seen = []
    for module in ("stable_diffusion", "textual_inversion", "dreambooth"):
        monkeypatch.setattr(f"baselines.{module}.draw", lambda pipe, text, *rest: seen.append(text) or [])
    for name in ("sd", "textual_inversion", "dreambooth"):
        make(name, base).generate(None, subject, PROMPT, [0])
    assert seen == [
        "a red fox on a blue background",
        "a <umm-subject> on a blue background",
        "a sks red fox on a blue background",
    ]


@pytest.mark.parametrize("name", ["sd", "textual_inversion", "dreambooth"])
def test_entry_points_name_the_classes(name: str) -> None:
    method = METHODS.load(name)
    assert method is CLASSES[name] and method.name == name
    assert method.config_class() == method.config_class()


def test_impossible_settings_are_named() -> None:
    with pytest.raises(ValueError, match="lora_rank must be above 0"):
        DreamBoothConfig(lora_rank=0)
    with pytest.raises(ValueError, match="num_class_images"):
        DreamBoothConfig(num_class_images=-1)
    with pytest.raises(ValueError, match="num_vectors"):
        TextualInversionConfig(num_vectors=0)
