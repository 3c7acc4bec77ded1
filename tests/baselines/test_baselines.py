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

from baselines import dreambooth, finetuning, progress
from baselines.custom_diffusion import CustomDiffusion, CustomDiffusionConfig
from baselines.dreambooth import DreamBooth, DreamBoothConfig, read
from baselines.dreambooth_lora import DreamBoothLora, DreamBoothLoraConfig
from baselines.finetuning import denoising_errors, image_size, read_references, training_schedule
from baselines.latents import cache_latents
from baselines.stable_diffusion import StableDiffusion, StableDiffusionConfig, draw
from baselines.textual_inversion import TextualInversion, TextualInversionConfig
from baselines.words import phrase
from umm_bench.base import Base
from umm_bench.errors import UserError
from umm_bench.methods import METHODS, Abilities, Case, Generation, Prompt, Subject

GENERATION = Generation(num_inference_steps=2, guidance_scale=3.0)
PROMPT = Prompt("p0", "a {subject} on a blue background", "recontextualise")
CONFIGS = {
    "sd": StableDiffusionConfig(),
    "textual_inversion": TextualInversionConfig(steps=3, batch_size=2),
    "dreambooth": DreamBoothConfig(steps=3, num_class_images=2, class_inference_steps=2),
    "dreambooth_lora": DreamBoothLoraConfig(identifiers=("sks",), steps=3, num_class_images=0, rank=2),
    "custom_diffusion": CustomDiffusionConfig(steps=3, num_class_images=2, class_inference_steps=2),
}
CLASSES = {
    "sd": StableDiffusion,
    "textual_inversion": TextualInversion,
    "dreambooth": DreamBooth,
    "dreambooth_lora": DreamBoothLora,
    "custom_diffusion": CustomDiffusion,
}


def set_up(method, subject: Subject, directory: Path):
    """The state for the subject, or for the case that it is alone."""
    return method.setup(Case((subject,)) if Abilities.of(type(method)).setup_for == "case" else subject, directory)


def draw_alone(method, state, subject: Subject, *seeds: int) -> np.ndarray:
    return pixels(method.generate([state], Case((subject,)), PROMPT, seeds))


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
    state = set_up(method, subject, tmp_path / "state")
    draw_alone(method, state, subject, 1)
    assert fingerprint(base.pipeline()) == before


@pytest.mark.parametrize("name", CONFIGS)
def test_a_batch_equals_its_members(name: str, base: Base, subject: Subject, tmp_path: Path) -> None:
    method = make(name, base)
    state = set_up(method, subject, tmp_path / "state")
    together = draw_alone(method, state, subject, 5, 2**62 + 1)
    alone = np.concatenate([draw_alone(method, state, subject, seed) for seed in (5, 2**62 + 1)])
    assert np.abs(together - alone).max() <= 1
    assert np.abs(together[0] - together[1]).max() > 1


@pytest.mark.parametrize("name", ["textual_inversion", "dreambooth", "dreambooth_lora", "custom_diffusion"])
def test_reload_draws_the_same_without_training(
    name: str, base: Base, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "state"
    first = make(name, base)
    images = draw_alone(first, set_up(first, subject, directory), subject, 7)
    again = make(name, base)
    monkeypatch.setattr(again, "train", lambda *_: pytest.fail("trained again"))
    assert np.array_equal(images, draw_alone(again, set_up(again, subject, directory), subject, 7))
    assert len(json.loads((directory / "state.json").read_text())["losses"]) == 3
    assert not list(directory.glob("*.bin"))


@pytest.mark.parametrize("name", ["textual_inversion", "dreambooth", "dreambooth_lora", "custom_diffusion"])
def test_training_is_a_function_of_the_subject(name: str, base: Base, subject: Subject, tmp_path: Path) -> None:
    losses = []
    for directory, who in (("a", subject), ("b", subject), ("c", replace(subject, id="other"))):
        torch.manual_seed(len(losses))  # the global generator must not matter
        set_up(make(name, base), who, tmp_path / directory)
        losses.append(json.loads((tmp_path / directory / "state.json").read_text())["losses"])
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def cut_off(method, subject: Subject, directory: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """A setup that saves whenever it can, and is killed in the step after `after`."""
    step = progress.Progress.step

    def killed(kept, loss):
        if len(kept.losses) == after:
            raise KeyboardInterrupt
        kept._pause = 0.0
        step(kept, loss)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(progress.Progress, "step", killed)
        set_up(method, subject, directory)


@pytest.mark.parametrize("name", ["textual_inversion", "dreambooth", "dreambooth_lora", "custom_diffusion"])
def test_a_killed_fine_tune_goes_on_as_if_nothing_had_been(
    name: str, base: Base, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, directory = make(name, base, steps=6), tmp_path / "state"
    whole = draw_alone(method, set_up(method, subject, tmp_path / "whole"), subject, 7)
    cut_off(method, subject, directory, monkeypatch, after=4)
    assert not directory.exists() and (tmp_path / "state.unfinished").is_dir()
    before = json.loads((tmp_path / "state.unfinished" / "state.json").read_text())["seconds"]
    denoised = []
    errors = finetuning.denoising_errors
    module = "textual_inversion" if name == "textual_inversion" else "dreambooth"
    monkeypatch.setattr(f"baselines.{module}.denoising_errors", lambda *args: denoised.append(1) or errors(*args))
    monkeypatch.setattr("baselines.dreambooth.draw", lambda *args: pytest.fail("class images drawn again"))
    state = set_up(method, subject, directory)
    monkeypatch.undo()
    assert len(denoised) == 2, "four of the six steps were done"
    records = [json.loads((tmp_path / of / "state.json").read_text()) for of in ("whole", "state")]
    assert records[0]["losses"] == records[1]["losses"]
    assert records[0]["seconds_before"] == 0 and records[1]["seconds_before"] == before > 0
    assert np.array_equal(whole, draw_alone(method, state, subject, 7))
    assert not (tmp_path / "state.unfinished").exists()


def test_a_full_disk_costs_the_saves_not_the_fine_tune(
    base: Base, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress.shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    method = make("textual_inversion", base, steps=6)
    cut_off(method, subject, tmp_path / "state", monkeypatch, after=4)
    assert not list((tmp_path / "state.unfinished").glob("*.safetensors"))
    set_up(method, subject, tmp_path / "state")
    assert len(json.loads((tmp_path / "state" / "state.json").read_text())["losses"]) == 6


def test_a_fine_tune_of_other_settings_does_not_go_on_from_it(
    base: Base, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(make("textual_inversion", base, steps=6), subject, tmp_path / "state", monkeypatch, after=4)
    set_up(make("textual_inversion", base, steps=5), subject, tmp_path / "state")
    record = json.loads((tmp_path / "state" / "state.json").read_text())
    set_up(make("textual_inversion", base, steps=5), subject, tmp_path / "other")
    assert record["losses"] == json.loads((tmp_path / "other" / "state.json").read_text())["losses"]
    assert record["seconds_before"] == 0


@pytest.mark.parametrize("name", ["textual_inversion", "dreambooth", "dreambooth_lora", "custom_diffusion"])
def test_a_diverged_fine_tune_is_refused(name: str, base: Base, subject: Subject, tmp_path: Path) -> None:
    method = make(name, base, learning_rate=float("inf"))
    with pytest.raises(UserError, match=f"{method.name} of fox: the .* became nan at step 2; .*--set {method.name}.le"):
        set_up(method, subject, tmp_path / "state")
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


@pytest.mark.parametrize(("name", "rate"), [("dreambooth", 3e-3), ("dreambooth_lora", 3e-2)])
def test_dreambooth_lowers_the_subjects_loss(name: str, rate: float, base: Base, subject: Subject) -> None:
    method = make(name, base, steps=60, learning_rate=rate, batch_size=4)
    case = Case((subject,))
    unet = method.trainable_unet(case)
    h = read(base.pipeline(), ["a sks red fox"]).detach()
    before = evaluate(base, subject, unet, h)
    assert before == pytest.approx(evaluate(base, subject, base.pipeline().unet, h), abs=1e-6)
    assert [step for step, _ in method.train(case, unet)] == list(range(60))
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
    state = set_up(method, subject, tmp_path / "state")
    pipe = method.knowing([state], ["<umm-subject>"])
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
        set_up(make("textual_inversion", base, placeholder="f"), subject, tmp_path / "state")


def test_dreambooth_saves_a_unet_that_diffusers_loads(base: Base, subject: Subject, tmp_path: Path) -> None:
    set_up(make("dreambooth", base), subject, tmp_path / "state")
    unet = UNet2DConditionModel.from_pretrained(tmp_path / "state" / "unet")
    shared = base.pipeline().unet.state_dict()
    assert any(not torch.allclose(tensor, shared[key], atol=1e-3) for key, tensor in unet.state_dict().items()) or any(
        not torch.equal(tensor, shared[key].half().float()) for key, tensor in unet.state_dict().items()
    )


def test_lora_off_equals_base(base: Base, subject: Subject, tmp_path: Path) -> None:
    method = make("dreambooth_lora", base, steps=20, learning_rate=3e-2, save_dtype="float32")
    tuned = method.with_adapters([set_up(method, subject, tmp_path / "state")])
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
    assert phrase(subject, "sks red fox") == "a sks red fox" and phrase(subject, "apple") == "an apple"
    assert phrase(style, "sks ink drawing") == "sks ink drawing"
    seen = []
    monkeypatch.setattr(TextualInversion, "knowing", lambda self, states, words: None)
    for module in ("stable_diffusion", "textual_inversion", "dreambooth"):
        monkeypatch.setattr(f"baselines.{module}.draw", lambda pipe, text, *rest: seen.append(text) or [])
    for name in ("sd", "textual_inversion", "dreambooth"):
        make(name, base).generate([None], Case((subject,)), PROMPT, [0])
    assert seen == [
        "a red fox on a blue background",
        "a <umm-subject> on a blue background",
        "a sks red fox on a blue background",
    ]


@pytest.mark.parametrize("name", CLASSES)
def test_entry_points_name_the_classes(name: str) -> None:
    method = METHODS.load(name)
    assert method is CLASSES[name] and method.name == name
    assert method.config_class() == method.config_class()


def test_impossible_settings_are_named() -> None:
    with pytest.raises(ValueError, match="rank must be above 0"):
        DreamBoothLoraConfig(rank=0)
    with pytest.raises(ValueError, match="no point of the curve 5, 10"):
        DreamBoothConfig(steps=7, curve=(5, 10))
    with pytest.raises(ValueError, match="one word"):
        TextualInversionConfig(placeholder="a word")
    with pytest.raises(ValueError, match="num_class_images"):
        DreamBoothConfig(num_class_images=-1)
    with pytest.raises(ValueError, match="num_vectors"):
        TextualInversionConfig(num_vectors=0)


@pytest.fixture
def pair(subject: Subject, tmp_path: Path) -> Case:
    Image.new("RGB", (16, 16), (250, 10, 10)).save(tmp_path / "red.png")
    return Case((subject, Subject("cup", "cup", (tmp_path / "red.png",))))


PAIR_PROMPT = Prompt("p1", "a {subject_2} beside a {subject_1}", "two_references")


def test_two_words_in_one_prompt_are_each_their_own_subjects(
    base: Base, pair: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = make("textual_inversion", base, num_vectors=2)
    states = [method.setup(subject, tmp_path / subject.id) for subject in pair.subjects]
    words = method.words(method.config, pair)
    pipe = method.knowing(states, words)
    table = pipe.text_encoder.get_input_embeddings().weight
    prompt = pipe.maybe_convert_prompt(PAIR_PROMPT.text(words), pipe.tokenizer)
    ids = pipe.tokenizer(prompt, add_special_tokens=False).input_ids
    learnt = [token for token in ids if token >= len(base.pipeline().tokenizer)]
    assert torch.equal(table[learnt], torch.cat([states[1], states[0]]))
    seen = []
    monkeypatch.setattr("baselines.textual_inversion.draw", lambda pipe, text, *rest: seen.append(text) or [])
    method.generate(states, pair, PAIR_PROMPT, [0])
    assert seen == ["a <umm-subject-2> beside a <umm-subject>"]


def test_dreambooth_learns_all_pictures_of_a_set_each_with_its_own_word(
    base: Base, pair: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = make("dreambooth", base, steps=3, batch_size=8)
    texts, drawn = [], []
    sample = dreambooth.Pictures.sample

    def sampled(pictures, batch_size, generator):
        z_BCHW, group_B = sample(pictures, batch_size, generator)
        if pictures.texts == texts[0]:
            assert pictures.group_N.tolist() == [0, 0, 1]
            drawn.extend(group_B.tolist())
        return z_BCHW, group_B

    monkeypatch.setattr(dreambooth, "read", lambda pipe, of: texts.append(of) or read(pipe, of))
    monkeypatch.setattr(dreambooth.Pictures, "sample", sampled)
    state = method.setup(pair, tmp_path / "state")
    assert texts == [["a sks red fox", "a pll cup"], ["a red fox", "a cup"]]
    assert set(drawn) == {0, 1}
    record = json.loads((tmp_path / "state" / "state.json").read_text())
    assert record["steps"] == 6 and record["trained_parameters"] == sum(p.numel() for p in state.unet.parameters())
    seen = []
    monkeypatch.setattr("baselines.dreambooth.draw", lambda pipe, text, *rest: seen.append((pipe, text)) or [])
    method.generate([state], pair, PAIR_PROMPT, [0])
    assert seen == [(state, "a pll cup beside a sks red fox")]


def test_a_set_of_more_subjects_than_words_is_refused(base: Base, pair: Case) -> None:
    few = replace(CONFIGS["dreambooth"], identifiers=("sks",))
    assert DreamBooth.check(few, base, Case(pair.subjects[:1]), PROMPT) is None
    assert "2 subjects but 1 identifiers" in DreamBooth.check(few, base, pair, PAIR_PROMPT)
    with pytest.raises(ValueError, match="all different"):
        DreamBoothConfig(identifiers=("sks", "sks"))
