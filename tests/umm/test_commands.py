"""The commands, on a tiny base saved in a folder."""

import os
import signal

import pytest
import torch
from PIL import Image

from tests.umm.conftest import make_tiue, picture
from umm_bench import sample, train
from umm_bench.base import load_base
from umm_bench.methods import Generation, Prompt, Subject
from umm_bench.umm import trainer
from umm_bench.umm.trainer import STATE_FILE
from umm_bench.umm_method import UMM, UMMConfig


@pytest.fixture(scope="module")
def base(tmp_path_factory, tiny_sd, tiny_image_encoder):
    """A Stable Diffusion folder with its image encoder inside, and a TIUE beside it."""
    folder = tmp_path_factory.mktemp("models")
    tiny_sd.save_pretrained(folder / "sd")
    for part in tiny_image_encoder:
        part.save_pretrained(folder / "sd" / "image_encoder")
    make_tiue().save_pretrained(folder / "tiue")
    make_tiue(text_dim=768).save_pretrained(folder / "wide")
    return folder


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--prompt": "a fox"}, 'does not contain the subject "dog"'),
        ({"--image": "missing.png"}, "no image file at missing.png"),
        ({"--image": __file__}, "cannot be read as an image"),
        ({"--alpha": "2"}, "alpha is 2.0"),
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


def run_train(base, folder, output, *arguments):
    small = ["--batch-size", 2, "--hidden-dim", 8, "--views", 1, "--base", base / "sd"]
    return train.main(list(map(str, ["--data", folder, "--output", output, *small, *arguments])))


def test_train_resume_and_sample(base, pairs_folder, tmp_path, reference, capsys):
    folder, output, through = pairs_folder(), tmp_path / "tiue", tmp_path / "through"
    assert run_train(base, folder, output, "--steps", 2) == 0
    assert "6 pairs, 0 of them encoded before" in capsys.readouterr().out
    assert run_train(base, folder, output, "--steps", 4) == 2
    assert "pass --resume" in capsys.readouterr().err
    assert run_train(base, folder, output, "--steps", 4, "--resume") == 0
    assert "6 pairs, 6 of them encoded before" in capsys.readouterr().out
    assert run_train(base, folder, through, "--steps", 4) == 0
    for name in ("diffusion_pytorch_model.safetensors", STATE_FILE):
        assert (output / name).exists()
    weights = "diffusion_pytorch_model.safetensors"
    assert (output / weights).read_bytes() == (through / weights).read_bytes()
    arguments = ["--image", reference, "--subject", "dog", "--prompt", "a dog", "--tiue", output]
    assert run_sample(base, *arguments, "--out", tmp_path / "out.png") == 0


def test_ctrl_c_leaves_a_checkpoint_to_go_on_from(base, pairs_folder, tmp_path, monkeypatch, capsys):
    original = trainer._loss

    def interrupted(pipe, pairs, schedule, config, state):
        if state.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return original(pipe, pairs, schedule, config, state)

    monkeypatch.setattr(trainer, "_loss", interrupted)
    folder = pairs_folder()
    assert run_train(base, folder, tmp_path / "tiue", "--steps", 5) == 130
    assert "stopped after step 2" in capsys.readouterr().err
    monkeypatch.setattr(trainer, "_loss", original)
    assert run_train(base, folder, tmp_path / "tiue", "--steps", 5, "--resume") == 0


def test_train_errors(base, tmp_path, capsys, pairs_folder):
    assert run_train(base, tmp_path / "nowhere", tmp_path / "out") == 2
    assert "no parquet pairs" in capsys.readouterr().err
    assert run_train(base, pairs_folder(), tmp_path / "out", "--steps", 0) == 2
    assert "--steps must be at least 1" in capsys.readouterr().err


def test_method_draws_one_image_a_seed_and_a_batch_equals_its_members(base, reference, tmp_path):
    method = UMM(load_base(str(base / "sd")), UMMConfig(tiue=str(base / "tiue")), Generation(2, 4.0))
    subject = Subject("s", "dog", (reference,))
    prompt = Prompt("p", "a {subject} on snow", "recontextualise")
    assert method.setup(subject, tmp_path / "setup") is None and not (tmp_path / "setup").exists()
    both = method.generate(None, subject, prompt, [1, 2])
    alone = method.generate(None, subject, prompt, [2])
    assert len(both) == 2 and both[0].size == (32, 32)
    to_tensor = lambda image: torch.tensor(list(image.tobytes()), dtype=torch.int)  # noqa: E731
    assert (to_tensor(both[1]) - to_tensor(alone[0])).abs().max() <= 1
    assert (to_tensor(both[0]) - to_tensor(both[1])).abs().max() > 10
    assert [path.name for path in UMM.weights(method.config)] == ["tiue"]
