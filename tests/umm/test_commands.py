"""The commands, on a tiny base saved in a folder."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.umm.conftest import picture
from umm_bench import sample, umm
from umm_bench.base import load_base
from umm_bench.cli.commands import run_command
from umm_bench.errors import UserError
from umm_bench.methods import Case, Generation, Prompt, Subject
from umm_bench.mini import family
from umm_bench.umm import SubjectCard
from umm_bench.umm_method import UMM, UMMConfig


@pytest.fixture
def reference(tmp_path):
    picture(4).save(tmp_path / "ref.png")
    return tmp_path / "ref.png"


def run_sample(base, *arguments):
    settings = ["--base", str(base / "sd"), "--tiue", str(base / "tiue"), "--steps", "2"]
    return sample.main([*settings, *map(str, arguments)])


def test_sample_writes_an_image(base, reference, tmp_path, capsys):
    out = tmp_path / "new" / "out.png"
    assert run_sample(base, "--image", reference, "--subject", "dog", "--prompt", "a dog on snow", "--out", out) == 0
    assert Image.open(out).size == (32, 32)
    assert capsys.readouterr().out.strip() == str(out)


def test_sample_with_two_subjects_and_several_images(base, reference, tmp_path):
    two = [
        "--image",
        reference,
        "--subject",
        "dog",
        "--image",
        reference,
        "--subject",
        "fox",
        "--alpha",
        1,
        "--alpha",
        0.5,
    ]
    assert run_sample(base, *two, "--prompt", "a dog and a fox", "--num-images", 2, "--out", tmp_path / "o.png") == 0
    assert (tmp_path / "o-0.png").exists() and (tmp_path / "o-1.png").exists()


def test_a_card_is_kept_and_used_without_pictures_and_tiue(base, reference, tmp_path, capsys):
    card, out = tmp_path / "dog.safetensors", tmp_path / "out.png"
    pair = ["--image", reference, reference, "--subject", "dog"]
    assert run_sample(base, *pair, "--save-card", card) == 0
    assert capsys.readouterr().out.strip() == str(card)
    prompt = ["--prompt", "a small dog on snow", "--tiue", base / "nowhere"]
    assert run_sample(base, "--card", card, *prompt, "--out", out) == 0
    assert run_sample(base, *pair, "--prompt", "a small dog on snow", "--out", tmp_path / "pictures.png") == 0
    assert out.read_bytes() == (tmp_path / "pictures.png").read_bytes()
    both = ["--image", reference, "--subject", "fox", "--card", card, "cat", "--alpha", 0.5, "--alpha", 1]
    assert run_sample(base, *both, "--prompt", "a fox and a cat", "--out", out) == 0
    assert out.read_bytes() != (tmp_path / "pictures.png").read_bytes()


def test_sample_from_a_picture_with_intervals(base, reference, tmp_path):
    settings = ["--image", reference, "--subject", "dog", "--prompt", "a dog", "--init-image", reference, "--fast",
                "--strength", 1, "--subject-interval", 0, 0.5, "--subject-scale", 3]  # fmt: skip
    assert run_sample(base, *settings, "--out", tmp_path / "o.png") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to do"),
        (["--prompt", " "], "--prompt is empty"),
        (["--prompt", "on snow " * 12], "24 tokens, this base reads 22"),
        (["--save-card", "x"], "there are 0"),
        (["--prompt", "a dog", "--card", "missing"], "no subject card at missing"),
        (["--prompt", "a dog", "--card", __file__], "no safetensors file"),
        (["--prompt", "a dog", "--card", "WIDE"], "made for a base of width 768, this base has 32"),
        (["--prompt", "a dog", "--strength", "0.5"], "need an image"),
        (["--prompt", "a dog", "--subject-interval", "0.9", "0.1"], "interval 0.9..0.1"),
    ],
)
def test_bad_arguments_are_one_line(base, tmp_path, capsys, arguments, message):
    SubjectCard(torch.zeros(1, 768), "dog").save(tmp_path / "wide")
    assert run_sample(base, *(str(tmp_path / "wide") if word == "WIDE" else word for word in arguments)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--prompt": "a fox"}, 'does not contain the subject "dog"'),
        ({"--image": "missing.png"}, "no image file at missing.png"),
        ({"--image": __file__}, "cannot be read as an image"),
        ({"--alpha": "2"}, "--alpha must be at most 1, not 2"),
        ({"--steps": "0"}, "--steps must be at least 1"),
        ({"--tiue": "nowhere"}, "nowhere"),
        ({"--tiue": "WIDE"}, "width 768, this base has 32"),
        ({"--base": "./nowhere"}, "./nowhere"),
        ({"--out": "out.unknown"}, "cannot write out.unknown"),
        ({"--subject": None}, "1 --image but 0 --subject"),
    ],
)
def test_sample_errors_are_one_line(base, reference, capsys, monkeypatch, tmp_path, change, message):
    monkeypatch.chdir(tmp_path)
    settings = {
        "--base": base / "sd", "--tiue": base / "tiue", "--image": reference, "--subject": "dog", "--prompt": "a dog",
        "--steps": 1,
    } | change  # fmt: skip
    arguments = [str(part) for pair in settings.items() if pair[1] is not None for part in pair]
    assert sample.main([part.replace("WIDE", str(base / "wide")) for part in arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error


def test_method_draws_one_image_a_seed_and_a_batch_equals_its_members(base, reference, tmp_path):
    method = UMM(load_base(str(base / "sd")), UMMConfig(tiue=str(base / "tiue")), Generation(2, 4.0))
    subject = Subject("s", "dog", (reference,))
    prompt = Prompt("p", "a {subject} on snow", "recontextualise")
    assert method.setup(subject, tmp_path / "setup") is None and not (tmp_path / "setup").exists()
    both = method.generate([None], Case((subject,)), prompt, [1, 2])
    alone = method.generate([None], Case((subject,)), prompt, [2])
    assert len(both) == 2 and both[0].size == (32, 32)
    to_tensor = lambda image: torch.tensor(list(image.tobytes()), dtype=torch.int)  # noqa: E731
    assert (to_tensor(both[1]) - to_tensor(alone[0])).abs().max() <= 1
    assert (to_tensor(both[0]) - to_tensor(both[1])).abs().max() > 10


def test_two_subjects_are_drawn_each_at_its_own_words(base, reference, tmp_path):
    method = UMM(load_base(str(base / "sd")), UMMConfig(tiue=str(base / "tiue"), alpha=1.0), Generation(2, 4.0))
    other = tmp_path / "other.png"
    Image.new("RGB", (32, 32), (10, 200, 30)).save(other)
    dog, cat = Subject("a", "dog", (reference,)), Subject("b", "cat", (other,))
    prompt = Prompt("p", "a {subject_1} and a {subject_2}", "two_references")
    drawn = method.generate([None, None], Case((dog, cat)), prompt, [1])[0]
    pipe = method._pipe
    asked = dict(alpha=1.0, num_inference_steps=2, guidance_scale=4.0)
    subjects = [umm.Subject(reference, "dog"), umm.Subject(other, "cat")]
    expected = pipe("a dog and a cat", subjects, generator=torch.Generator().manual_seed(1), **asked).images[0]
    assert drawn.tobytes() == expected.tobytes()
    swapped = [umm.Subject(other, "dog"), umm.Subject(reference, "cat")]
    assert pipe("a dog and a cat", swapped, generator=torch.Generator().manual_seed(1), **asked).images[0] != drawn


@pytest.mark.parametrize("template", ["a {subject_1} and a {subject_2}", "a {subject_2} and a {subject_1}, no dog"])
def test_two_subjects_of_one_class_have_each_its_own_place(base, reference, tmp_path, template):
    method = UMM(load_base(str(base / "sd")), UMMConfig(tiue=str(base / "tiue"), alpha=1.0), Generation(2, 4.0))
    other = tmp_path / "other.png"
    Image.new("RGB", (32, 32), (10, 200, 30)).save(other)
    first, second = Subject("a", "dog", (reference,)), Subject("b", "dog", (other,))
    prompt, pair = Prompt("p", template, "two_references"), Case((first, second))
    drawn = method.generate([None, None], pair, prompt, [1])[0]
    places = (1, 2) if template.startswith("a {subject_1}") else (2, 1)
    asked = dict(alpha=1.0, num_inference_steps=2, guidance_scale=4.0)
    images = []
    for order in (places, places[::-1]):
        subjects = [umm.Subject(p, "dog", occurrence=n) for p, n in zip((reference, other), order, strict=True)]
        generator = torch.Generator().manual_seed(1)
        images.append(method._pipe(prompt.text(pair.class_nouns), subjects, generator=generator, **asked).images[0])
    assert drawn == images[0] != images[1]


def test_a_prompt_that_cannot_be_drawn_is_known_before(base):
    def why(template: str, *nouns: str) -> str | None:
        case = Case(tuple(Subject(f"s{i}", noun, (Path("x.png"),)) for i, noun in enumerate(nouns)))
        return UMM.check(UMMConfig(), load_base(str(base / "sd")), case, Prompt("p", template, "style"))

    assert why("a {subject} on snow", "dog") is None
    assert why("a {subject_2} on a {subject_1}", "dog", "cat") is None
    assert why("a {subject} beside a dog", "dog") is None
    assert why("a {subject_1} and a {subject_2}", "dog", "dog") is None
    assert why("a {subject_1} and a {subject_2}", "dog", "red dog") is None
    assert 'does not contain the subject "dog" as words' in why("two {subject}s and a dog", "dog")
    assert "the prompt is cut" in why("a " + "red " * 40 + "{subject}", "dog")


def test_the_image_encoder_that_is_used_is_among_the_weights(base):
    own = UMMConfig(tiue=str(base / "tiue"))
    assert UMM.weights(own, load_base(str(base / "sd"))) == [base / "tiue", base / "sd" / "image_encoder"]
    assert UMM.weights(own, load_base("mini")) == [base / "tiue", family.path("image_encoder")]
    assert UMM.weights(own, load_base("owner/name")) == [base / "tiue"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "noext"], "the name has no ending"),
        (["--out", "FOLDER"], "must name a file, not a folder"),
        (["--out", "new/"], "must name a file, not a folder"),
        (["--out", "FILE/x.png"], "FILE is a file, not a folder"),
        (["--out", "x" * 300 + ".png"], "name too long"),
        (["--out", "o.png", "--num-images", 2], "o-1.png (--out): it is a folder"),
        (["--save-card", "FOLDER"], "--save-card must name a file"),
        (["--save-card", "FILE/card"], "FILE is a file, not a folder"),
        (["--guidance-scale", "nan"], "must be a finite number"),
        (["--subject-scale", "inf"], "must be a finite number"),
        (["--steps", 1001], "--steps must be at most 1000"),
        (["--seed", 2**64], "--seed must be at most"),
        (["--num-images", 0], "--num-images must be at least 1"),
        (["--strength", 0, "--init-image", "ref.png"], "--strength must be above 0"),
        (["--alpha", "-0.1"], "--alpha must be at least 0"),
        (["--negative-prompt", "snow " * 30], "--negative-prompt has 30 tokens, this base reads 22"),
        (["--negative-prompt", "snow", "--guidance-scale", 1], "above 1"),
        (["--init-image", "missing.png"], "no image file at missing.png"),
        (["--mask", "ref.png"], "give --init-image"),
        (["--unknown"], "unrecognized arguments"),
    ],
)
def test_what_would_fail_at_the_end_is_said_before_anything_is_drawn(
    base, reference, umm, tmp_path, capsys, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FOLDER").mkdir()
    (tmp_path / "o-1.png").mkdir()
    (tmp_path / "FILE").write_text("a file")
    before = sorted(tmp_path.rglob("*"))
    drawn = []
    monkeypatch.setattr(type(umm), "_denoise", lambda *settings: drawn.append(1))
    monkeypatch.setattr(type(umm), "make_card", lambda *settings: drawn.append(1))
    usual = ["--image", reference, "--subject", "dog", "--prompt", "a dog"]
    assert run_sample(base, *usual, *arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error
    assert not drawn and sorted(tmp_path.rglob("*")) == before


def test_steps_that_a_scheduler_does_not_have(base, umm, tmp_path, capsys, monkeypatch):
    def refuse(steps):
        raise ValueError("50 is the most")

    monkeypatch.setattr(umm.scheduler, "set_timesteps", refuse)
    monkeypatch.setattr(sample, "_pipeline", lambda args: umm)
    assert run_sample(base, "--prompt", "a dog", "--out", tmp_path / "o.png") == 2
    assert "--steps 2 is not for this base: 50 is the most" in capsys.readouterr().err


def test_many_images_are_drawn_a_few_at_a_time_from_the_same_seeds(base, umm, tmp_path, monkeypatch):
    calls = []
    draw = type(umm).__call__

    def counted(self, *settings, **more):
        calls.append(more["num_images_per_prompt"])
        return draw(self, *settings, **more)

    monkeypatch.setattr(type(umm), "__call__", counted)
    monkeypatch.setattr(sample, "_AT_ONCE", 2)
    assert run_sample(base, "--prompt", "a dog", "--num-images", 3, "--seed", 5, "--out", tmp_path / "o.png") == 0
    assert run_sample(base, "--prompt", "a dog", "--seed", 7, "--out", tmp_path / "alone.png") == 0
    assert calls == [2, 1, 1]
    assert (tmp_path / "o-2.png").read_bytes() == (tmp_path / "alone.png").read_bytes()


def test_a_negative_prompt_that_is_cut_is_said_by_the_pipeline(umm, caplog):
    settings = {"num_inference_steps": 1, "output_type": "latent"}
    umm("a dog", negative_prompt="snow " * 30 + "fox", **settings)
    assert "not read" in caplog.text and "fox" in caplog.text
    caplog.clear()
    umm("a dog", negative_prompt="snow", **settings)
    assert "not read" not in caplog.text


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_scales_that_are_no_numbers_are_refused_by_the_pipeline(umm, scale):
    with pytest.raises(UserError, match="guidance"):
        umm("a dog", guidance_scale=scale, num_inference_steps=1)
    with pytest.raises(UserError, match="guidance scale"):
        umm("a dog", subject_guidance_scale=scale, num_inference_steps=1)


def test_out_of_memory_is_one_line_and_a_bug_is_none(capsys):
    def fail(error):
        raise error

    assert run_command(lambda: fail(MemoryError())) == 2
    assert run_command(lambda: fail(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))) == 2
    assert capsys.readouterr().err.count("error: out of memory") == 2
    with pytest.raises(RuntimeError, match="a bug"):
        run_command(lambda: fail(RuntimeError("a bug")))


def test_a_picture_that_cannot_be_written_leaves_the_one_before(base, tmp_path, monkeypatch, capsys):
    out = tmp_path / "o.png"
    out.write_bytes(b"before")

    def fail(self, path, *settings):
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(sample, "check_image_file", lambda *settings: None)
    monkeypatch.setattr(Image.Image, "save", fail)
    assert run_sample(base, "--prompt", "a dog", "--out", out) == 2
    assert f"cannot write {out}: disk full" in capsys.readouterr().err
    assert out.read_bytes() == b"before" and list(tmp_path.iterdir()) == [out]
