"""Any input of a command ends in a result, or in one line with exit code 2."""

from pathlib import Path

import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tests.fuzz.ending import ends_well
from tests.fuzz.odd import names, numbers, options, texts
from tests.umm.conftest import make_umm, picture
from umm_bench import base, run, sample, train
from umm_bench.errors import UserError
from umm_bench.mini import family, pretrain
from umm_bench.mini.world import corpus
from umm_bench.umm import Subject, SubjectCard, UMMPipeline


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder to write into, with a file, a folder, a reference and a card in it."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "FILE").write_text("not a folder")
    (folder / "FOLDER").mkdir()
    picture(4).save(folder / "ref.png")
    SubjectCard(torch.zeros(1, 32), "dog").save(folder / "dog.safetensors")
    return folder


@pytest.fixture(scope="module")
def pipe(tiny_sd, tiny_image_encoder) -> UMMPipeline:
    return make_umm(tiny_sd, tiny_image_encoder)


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


SAMPLE = {
    "--prompt": texts,
    "--subject": texts,
    "--negative-prompt": texts,
    "--out": names,
    "--save-card": names,
    "--image": st.one_of(names, st.just("ref.png")),
    "--card": st.one_of(names, st.just("dog.safetensors")),
    "--init-image": st.one_of(names, st.just("ref.png")),
    "--mask": st.one_of(names, st.just("ref.png")),
    "--steps": st.one_of(st.sampled_from(["1", "0", "1001", "nan", str(2**64)]), st.text(max_size=3)),
    "--num-images": st.sampled_from(["1", "2", "0", "-1", "nan", "", str(2**64)]),
    **dict.fromkeys(("--alpha", "--guidance-scale", "--subject-scale", "--strength", "--seed", "--unknown"), numbers),
}


@given(words=options(SAMPLE, 4), usual=st.booleans())
@example(words=["--prompt", "a dog", "--guidance-scale", "nan"], usual=False)
@example(words=["--prompt", "a dog", "--seed", str(2**64)], usual=False)
def test_sample(here, outcomes, pipe, words, usual):
    if usual:
        words = ["--prompt", "a dog on snow", "--image", "ref.png", "--subject", "dog", *words]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "_pipeline", lambda args: pipe)
        ends_well(outcomes, sample.main, ["--steps", "1", *words])


@given(prompt=texts, phrase=texts)
@example(prompt="a dog", phrase="dog")
def test_prompts_and_phrases(outcomes, pipe, prompt, phrase):
    assume(not any("\ud800" <= letter <= "\udfff" for letter in prompt + phrase))  # refused by the commands
    try:
        pipe(prompt, Subject(picture(1), phrase), num_inference_steps=1, output_type="latent")
        outcomes["pictures"] += 1
    except UserError as error:
        assert "\n" not in str(error).replace(prompt, "").replace(phrase, "")
        outcomes["UserError"] += 1


TRAIN = {
    name: numbers
    for name in (
        "--steps", "--batch-size", "--gradient-accumulation-steps", "--lr", "--warmup-steps", "--weight-decay",
        "--min-snr-gamma", "--drop-rate", "--ema-decay", "--num-pseudo-words", "--hidden-dim", "--depth", "--seed",
        "--checkpoint-every", "--views", "--head-rate", "--augment-crop", "--augment-flip", "--augment-colour",
        "--augment-rotation", "--augment-margin", "--validation-steps", "--validation-subjects",
    )
}  # fmt: skip
TRAIN |= dict.fromkeys(("--output", "--cache", "--data"), names)
TRAIN |= dict.fromkeys(("--validation-prompt", "--mixed-precision"), texts)


@given(words=options(TRAIN, 4))
@example(words=["--lr", "nan"])
@example(words=["--output", "FILE"])
def test_train(here, outcomes, words):
    """The command line and what it names; the training itself ends at its first model."""

    def reached(name):
        raise UserError("the base was reached")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "load_base", reached)
        patch.setattr("umm_bench.umm.pairs.count_pairs", lambda folder: 1)
        ends_well(outcomes, train.main, ["--data", "pairs", "--output", "tiue", *words])


RUN = dict.fromkeys(("--images-per-prompt", "--seed", "--steps", "--guidance-scale", "--batch-size"), numbers)
RUN |= {"--output": names, "--metrics": texts, "--methods": texts}
SETTINGS = st.sampled_from(["umm.alpha", "umm.references", "clip_t.model", "x"])
RUN |= {"--set": st.one_of(texts, st.tuples(SETTINGS, numbers).map("=".join))}


@given(words=options(RUN))
@example(words=["--output", "FILE"])
@example(words=["--guidance-scale", "nan"])
def test_run(here, outcomes, words):
    """The command line and its output folder; the run itself is not begun."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "_run", lambda *settings: None)
        ends_well(outcomes, run.main, ["--methods", "umm", *words])


PRETRAIN = dict.fromkeys(("--steps", "--size", "--threads", "--workers", "--seconds"), numbers)
PRETRAIN |= {"--device": texts, "--folder": names}
RECIPE = st.sampled_from(["scenes_per_step", "learning_rate", "warmup", "decay", "nothing", ""])
PRETRAIN |= {"-o": st.tuples(RECIPE, numbers).map("=".join)}


@given(name=st.one_of(st.sampled_from(["vae", "encoder"]), texts), words=options(PRETRAIN))
@example(name="vae", words=["--folder", "FILE"])
def test_pretrain(here, outcomes, name, words):
    """The command line, the recipe made of it and its output; the training itself is not begun."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain, "fit", lambda *settings: (step for step in ()))
        patch.setattr(torch, "set_num_threads", lambda number: None)
        patch.setattr(family, "publish", lambda *settings: [])
        patch.setattr(pretrain, "training_runs", lambda *settings: [])
        patch.setattr(pretrain, "make", _recipe)
        ends_well(outcomes, pretrain.main, [name, *words])


_made: dict[str, object] = {}
_make = pretrain.make


def _recipe(name, size, options):
    """The real recipe, kept where nothing asks for another: making one takes half a second."""
    key = f"{name} {size if size in (32, 64) else 64} {options}"
    if key not in _made:
        assume(len(_made) < 200)
        _made[key] = _make(name, min(size, 64), options)
    return _made[key]


@given(words=options({"--size": numbers, "--unknown": numbers, "--varied": texts}))
def test_corpus(here, outcomes, words):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "default_corpus", lambda size, varied: Path("data"))
        ends_well(outcomes, corpus.main, words)
