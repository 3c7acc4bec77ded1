"""`python -m umm_bench.mini.pretrain` and `.world.corpus`: what cannot work is said before anything is made."""

import pytest
import torch

from umm_bench.mini import family, pretrain
from umm_bench.mini.world import corpus


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["vae", "--folder", "FILE"], "FILE is a file, not a folder"),
        (["vae", "--folder", "FILE/run"], "FILE is a file, not a folder"),
        (["vae", "--folder", "x" * 300], "name too long"),
        (["vae", "--steps", "0"], "--steps must be at least 1"),
        (["vae", "--steps", "nan"], "--steps must be a whole number"),
        (["vae", "--size", "0"], "--size must be at least 32"),
        (["vae", "--size", "65"], "multiple of 32"),
        (["vae", "--threads", "-1"], "--threads must be at least 1"),
        (["vae", "--workers", "-1"], "--workers must be at least 0"),
        (["vae", "--seconds", "nan"], "--seconds must be a finite number"),
        (["vae", "--device", "toaster"], "no such device"),
        (["vae", "--device", "meta"], "no such device"),
        (["vae", "-o", "learning_rate=nan"], "give a value like"),
        (["vae", "-o", "scenes_per_step=1e3"], "give a value like"),
        (["vae", "-o", "scenes_per_step=" + "9" * 30], "give a value like"),
        (["nothing"], "unknown mini model"),
        ([], "required: name"),
    ],
)
def test_pretrain(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("a file")
    monkeypatch.setattr(pretrain, "fit", lambda *settings: pytest.fail("it was begun"))
    assert pretrain.main(words) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and message in error and "\n" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]


def test_weights_that_could_not_be_written_at_the_end(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("a file")
    monkeypatch.setattr(pretrain, "fit", lambda *settings: pytest.fail("it was begun"))
    monkeypatch.setattr(family, "WEIGHTS", tmp_path / "FILE" / "weights")
    assert pretrain.main(["vae"]) == 2
    assert "FILE is a file, not a folder" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert pretrain.main(["vae", "--device", "cuda"]) == 2
    assert "--device cuda: there is no such device here" in capsys.readouterr().err


@pytest.mark.parametrize(
    "damage", ["{", "[]", "{}", '{"fingerprint": 1}', '{"fingerprint": 1, "step": "x", "seconds": 0}']
)
def test_a_damaged_checkpoint_is_one_line(damage, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "checkpoint").mkdir(parents=True)
    (tmp_path / "run" / "checkpoint" / "state.json").write_text(damage)
    assert pretrain.main(["vae", "--folder", "run"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: run/checkpoint is damaged")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "0"], "--size must be at least 1"),
        (["--size", "nan"], "--size must be a whole number"),
        (["--size", str(2**64)], "--size must be at most"),
        (["--size", "2"], "data is a file, not a folder"),
    ],
)
def test_corpus(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").write_text("a file")
    assert corpus.main(words) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and message in error and "\n" not in error
