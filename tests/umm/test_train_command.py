"""`python -m umm_bench.train` on a tiny base saved in a folder."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.umm.conftest import picture
from umm_bench import sample, train
from umm_bench.base import choose_precision
from umm_bench.cli.commands import signals_noted
from umm_bench.umm import trainer
from umm_bench.umm.checkpoint import STATE_FILE

WEIGHTS = "diffusion_pytorch_model.safetensors"


def arguments(base, folder, output, *more):
    small = ["--batch-size", 2, "--hidden-dim", 8, "--views", 1, "--base", base / "sd", "--mixed-precision", "no"]
    return list(map(str, ["--data", folder, "--output", output, *small, *more]))


def run_train(*settings):
    return train.main(arguments(*settings))


def test_train_resume_and_sample(base, pairs_folder, tmp_path, capsys):
    folder, output, through = pairs_folder(), tmp_path / "tiue", tmp_path / "through"
    assert run_train(base, folder, output, "--steps", 2) == 0
    assert "6 pairs, 0 of them encoded before" in capsys.readouterr().out
    assert run_train(base, folder, output, "--steps", 4) == 2
    assert "pass --resume" in capsys.readouterr().err
    assert run_train(base, folder, output, "--steps", 4, "--resume") == 0
    assert "6 pairs, 6 of them encoded before" in capsys.readouterr().out
    assert run_train(base, folder, through, "--steps", 4) == 0
    assert (output / STATE_FILE).exists()
    assert (output / WEIGHTS).read_bytes() == (through / WEIGHTS).read_bytes()
    reference = tmp_path / "reference.png"
    picture(4).save(reference)
    settings = ["--base", base / "sd", "--image", reference, "--subject", "dog", "--prompt", "a dog", "--tiue", output]
    assert sample.main([*map(str, settings), "--steps", "2", "--out", str(tmp_path / "out.png")]) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_a_checkpoint_to_go_on_from(base, pairs_folder, tmp_path, monkeypatch, capsys, number):
    original, calls = trainer.umm_loss, []

    def interrupted(*settings):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), number)
        return original(*settings)

    monkeypatch.setattr(trainer, "umm_loss", interrupted)
    folder = pairs_folder()
    assert run_train(base, folder, tmp_path / "tiue", "--steps", 5) == 130
    assert "stopped after step 2" in capsys.readouterr().err
    monkeypatch.setattr(trainer, "umm_loss", original)
    assert run_train(base, folder, tmp_path / "tiue", "--steps", 5, "--resume") == 0


def test_a_launched_process_outlives_ctrl_c_twice_and_ends_at_a_kill():
    before = signal.getsignal(signal.SIGTERM)
    with signals_noted(alone=False) as noted:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert noted == [signal.SIGINT, signal.SIGINT] and signal.getsignal(signal.SIGTERM) == before
    with signals_noted() as noted, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_validation_and_tracker_show_and_change_nothing(base, pairs_folder, tmp_path):
    folder, plain, shown = pairs_folder(), tmp_path / "plain", tmp_path / "shown"
    assert run_train(base, folder, plain, "--steps", 3) == 0
    show = ["--report-to", "tensorboard", "--validation-steps", 2, "--validation-prompt", "a {subject} on snow"]
    assert run_train(base, folder, shown, "--steps", 3, *show) == 0
    assert (shown / WEIGHTS).read_bytes() == (plain / WEIGHTS).read_bytes()
    grids = sorted((shown / "validation").iterdir())
    assert [path.name for path in grids] == ["step-000002.png", "step-000003.png"]
    # two nouns in the data, each with its reference and one prompt
    assert Image.open(grids[0]).size == (64, 64)
    assert np.asarray(Image.open(grids[0])).std() > 0

    events = EventAccumulator(str(shown / "logs")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3]
    assert all(np.isfinite(event.value) for event in events.Scalars("grad_norm"))
    assert [event.step for event in events.Images("validation")] == [2, 3]


def test_nouns_that_a_validation_prompt_has_already_are_no_references(base, pairs_folder, tmp_path, capsys):
    folder = pairs_folder()
    shown = ["--validation-steps", 1, "--validation-prompt", "a {subject} beside a dog"]
    assert run_train(base, folder, tmp_path / "tiue", "--steps", 1, *shown) == 0
    assert Image.open(tmp_path / "tiue" / "validation" / "step-000001.png").size == (64, 32)  # the fox alone
    shown[-1] = "a {subject} beside a dog and a fox"
    assert run_train(base, folder, tmp_path / "other", "--steps", 1, *shown) == 2
    assert "to validate on" in capsys.readouterr().err and not (tmp_path / "other").exists()


def test_two_processes_train_as_one_with_their_rows(base, pairs_folder, tmp_path):
    """Four rows a step in one process, or two in each of two: the same TIUE up to rounding."""
    folder, one, two = pairs_folder(), tmp_path / "one", tmp_path / "two"
    with socket.socket() as free:  # older releases of accelerate wait for ever on port 0
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
              "--main_process_port", str(port), "--mixed_precision", "no", "--dynamo_backend", "no",
              "-m", "umm_bench.train"]  # fmt: skip
    result = subprocess.run(
        [sys.executable, *launch, *arguments(base, folder, two, "--steps", 2)],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        cwd=Path(train.__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("6 pairs, 0 of them encoded before") == 1
    assert run_train(base, folder, one, "--steps", 2, "--gradient-accumulation-steps", 2) == 0
    both = [load_file(path / WEIGHTS) for path in (one, two)]
    start = load_file(base / "tiue" / WEIGHTS)
    assert both[0].keys() == both[1].keys() == start.keys()
    assert all(torch.allclose(both[0][name], both[1][name], atol=1e-6) for name in both[0])
    # a state of two processes goes on in one, where the rows of a step are as many
    more = ["--steps", 3, "--resume"]
    assert run_train(base, folder, two, *more) == 2
    assert run_train(base, folder, two, *more, "--gradient-accumulation-steps", 2) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--steps", 0], "--steps must be at least 1"),
        (["--gradient-accumulation-steps", 0], "--gradient-accumulation-steps must be at least 1"),
        (["--augment-flip", 2], "flip must lie between 0 and 1.0"),
        (["--validation-steps", 1, "--validation-prompt", "a dog"], "must contain {subject} once"),
        (["--data", "nowhere"], "no parquet pairs"),
    ],
)
def test_train_errors_are_one_line(base, tmp_path, capsys, pairs_folder, change, message):
    assert run_train(base, pairs_folder(), tmp_path / "out", *change) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and message in error and "\n" not in error


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed")
def test_a_missing_tracker_is_named(base, pairs_folder, tmp_path, capsys):
    assert run_train(base, pairs_folder(), tmp_path / "out", "--report-to", "wandb") == 2
    assert "pip install wandb" in capsys.readouterr().err


def test_each_augmentation_is_switched_alone(base, tmp_path, pairs_folder, monkeypatch):
    seen = []
    monkeypatch.setattr(train, "_encode", lambda *settings: seen.append(settings[3]) or exit(0))
    folder = pairs_folder()
    for name in ("crop", "flip", "colour", "rotation", "margin"):
        with pytest.raises(SystemExit):
            run_train(base, folder, tmp_path / "out", f"--augment-{name}", 0)
    fields = [vars(config.augmentation) for config in seen]
    assert [[name for name, value in field.items() if value == 0] for field in fields] == [
        ["jitter"], ["flip"], ["colour"], ["rotation"], ["margin"]
    ]  # fmt: skip


PRECISIONS = [(True, True, "bf16"), (False, True, "bf16"), (False, False, "no")]


@pytest.mark.parametrize(("amx", "avx512", "chosen"), PRECISIONS)
def test_bfloat16_is_chosen_where_the_processor_multiplies_it(amx, avx512, chosen, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    assert choose_precision("auto", "cpu") == chosen and choose_precision("no", "cpu") == "no"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--output", "FILE"], "FILE is a file, not a folder"),
        (["--output", "FILE/tiue"], "FILE is a file, not a folder"),
        (["--output", "x" * 300], "name too long"),
        (["--cache", "FILE"], "(--cache)"),
        (["--lr", "nan"], "--lr must be a finite number"),
        (["--lr", "-1"], "--lr must be at least 0"),
        (["--drop-rate", "1.5"], "--drop-rate must be at most 1"),
        (["--seed", 2**64], "--seed must be at most"),
        (["--depth", "-1"], "--depth must be at least 0"),
        (["--validation-steps", "-1"], "--validation-steps must be at least 0"),
        (["--augment-margin", "nan"], "must be a finite number"),
        (["--validation-steps", 1, "--validation-prompt", "a {subject} " + "snow " * 30], "is too long; not read"),
        (
            ["--validation-steps", 1, "--validation-prompt", "snow " * 30 + "{subject}"],
            "is cut at 22 tokens",
        ),
        (["--validation-steps", 1, "--output", "BUSY"], "BUSY/validation"),
    ],
)
def test_what_would_fail_later_is_said_before_anything_is_encoded(
    base, pairs_folder, tmp_path, monkeypatch, capsys, change, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("a file")
    (tmp_path / "BUSY").mkdir()
    (tmp_path / "BUSY" / "validation").write_text("a file")
    folder = pairs_folder()
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(train, "_encode", lambda *settings: pytest.fail("it was begun"))
    assert run_train(base, folder, "out", *change) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error
    assert sorted(tmp_path.rglob("*")) == before


def test_braces_in_a_validation_prompt_are_its_own(base, pairs_folder, tmp_path):
    shown = ["--validation-steps", 1, "--validation-prompt", "a {subject} {on} {0} {} snow }{"]
    assert run_train(base, pairs_folder(), tmp_path / "out", "--steps", 1, *shown) == 0
    assert Image.open(tmp_path / "out" / "validation" / "step-000001.png").size == (64, 64)


@pytest.mark.parametrize("key", ["config", "identity", "step"])
def test_a_state_without_its_metadata_is_damaged(base, pairs_folder, tmp_path, capsys, key):
    folder, out = pairs_folder(), tmp_path / "out"
    assert run_train(base, folder, out, "--steps", 1) == 0
    with safe_open(out / STATE_FILE, framework="pt") as file:
        kept = {name: value for name, value in file.metadata().items() if name != key}
    save_file(load_file(out / STATE_FILE), out / STATE_FILE, kept)
    assert run_train(base, folder, out, "--steps", 2, "--resume") == 2
    assert f"{STATE_FILE} is damaged" in capsys.readouterr().err


def test_a_moment_that_a_state_lacks_is_damage_and_not_a_traceback(base, pairs_folder, tmp_path, capsys):
    folder, out = pairs_folder(), tmp_path / "out"
    assert run_train(base, folder, out, "--steps", 1) == 0
    with safe_open(out / STATE_FILE, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(out / STATE_FILE)
    lost = next(name for name in tensors if name.endswith("exp_avg"))
    save_file({name: value for name, value in tensors.items() if name != lost}, out / STATE_FILE, metadata)
    assert run_train(base, folder, out, "--steps", 2, "--resume") == 2
    assert "is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: b"", lambda data: b"\xff" * 99])
def test_a_damaged_cache_is_encoded_anew(base, pairs_folder, tmp_path, capsys, damage):
    folder, again = pairs_folder(), tmp_path / "again"
    assert run_train(base, folder, tmp_path / "first", "--steps", 1) == 0
    (cached,) = (folder / ".encoded").iterdir()
    whole = cached.read_bytes()
    cached.write_bytes(damage(whole))
    capsys.readouterr()
    assert run_train(base, folder, again, "--steps", 1) == 0
    assert "6 pairs, 0 of them encoded before" in capsys.readouterr().out and cached.read_bytes() == whole
    assert (again / WEIGHTS).read_bytes() == (tmp_path / "first" / WEIGHTS).read_bytes()


def test_a_base_for_inpainting_is_not_trained_on(base, umm, pairs_folder, tmp_path, monkeypatch, capsys):
    unet = SimpleNamespace(config=SimpleNamespace(in_channels=9))
    pipe = SimpleNamespace(unet=unet, vae=umm.vae, scheduler=umm.scheduler, to=lambda device: pipe)
    monkeypatch.setattr("umm_bench.umm_method.load_umm", lambda *settings: pipe)
    assert run_train(base, pairs_folder(), tmp_path / "out") == 2
    assert "is for inpainting" in capsys.readouterr().err
