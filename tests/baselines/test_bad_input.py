"""Pictures as people have them, trainings that diverge, disks that fill up: one line each."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image

from baselines import dreambooth, progress, textual_inversion
from tests.baselines.test_baselines import make, set_up
from umm_bench.base import Base
from umm_bench.errors import UserError
from umm_bench.methods import Subject

TRAINED = ["textual_inversion", "dreambooth", "dreambooth_lora", "custom_diffusion"]


def pictures(folder: Path, sizes: list[tuple[int, int]], noun: str = "fox") -> Subject:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number:02}.png" for number in range(len(sizes))]
    for number, (path, size) in enumerate(zip(paths, sizes, strict=True)):
        Image.new("RGB", size, (5 * number, 100, 50)).save(path)
    return Subject("fox", noun, tuple(paths))


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize(
    "sizes", [[(16, 16)], [(16, 16)] * 50, [(1, 1), (300, 7), (7, 300), (64, 64)]], ids=["one", "fifty", "sizes"]
)
def test_any_number_of_pictures_of_any_size(
    name: str, sizes: list[tuple[int, int]], base: Base, tmp_path: Path
) -> None:
    set_up(make(name, base), pictures(tmp_path / "pictures", sizes), tmp_path / "state")
    losses = json.loads((tmp_path / "state" / "state.json").read_text())["losses"]
    assert len(losses) == 3 and all(0 < loss < 100 for loss in losses)


@pytest.mark.parametrize("name", TRAINED)
def test_a_corrupt_picture_is_named(name: str, base: Base, tmp_path: Path) -> None:
    subject = pictures(tmp_path / "pictures", [(16, 16)] * 2)
    subject.references[1].write_bytes(subject.references[1].read_bytes()[:60])
    with pytest.raises(UserError, match=r"01\.png cannot be read as an image"):
        set_up(make(name, base), subject, tmp_path / "state")
    assert not (tmp_path / "state").exists()


def test_a_class_noun_without_a_letter_is_named(base: Base, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'fox' has no class noun"):
        set_up(make("textual_inversion", base), pictures(tmp_path / "p", [(8, 8)], noun=""), tmp_path / "state")


def module_of(name: str) -> Any:
    return textual_inversion if name == "textual_inversion" else dreambooth


def nan_after(steps: int, errors: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    calls: list[int] = []

    def failing(*args: Any) -> torch.Tensor:
        calls.append(1)
        return errors(*args) * (1.0 if len(calls) <= steps else float("nan"))

    return failing


@pytest.mark.parametrize("name", TRAINED)
def test_what_becomes_nan_stops_and_the_last_good_state_is_kept(
    name: str, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, module = pictures(tmp_path / "pictures", [(16, 16)] * 2), module_of(name)
    good = tmp_path / "good"
    set_up(make(name, base, steps=2), subject, good)
    monkeypatch.setattr(module, "denoising_errors", nan_after(2, module.denoising_errors))
    with pytest.raises(UserError, match=r"became nan at step 3; .* after step 2 is kept in .*state\.stopped") as told:
        set_up(make(name, base, steps=5), subject, tmp_path / "state")
    assert "\n" not in str(told.value) and not (tmp_path / "state").exists()
    kept = tmp_path / "state.stopped"
    assert json.loads((kept / "state.json").read_text())["steps"] == 2
    files = [path.relative_to(good) for path in good.rglob("*.safetensors")]
    assert files and all((kept / file).read_bytes() == (good / file).read_bytes() for file in files)
    if name == "dreambooth":
        UNet2DConditionModel.from_pretrained(kept / "unet")


def test_weights_that_are_no_numbers_are_not_kept(base: Base, tmp_path: Path) -> None:
    method = make("dreambooth", base, learning_rate=float("inf"))
    with pytest.raises(UserError, match=r"learning_rate=RATE$"):
        set_up(method, pictures(tmp_path / "pictures", [(16, 16)]), tmp_path / "state")
    assert not (tmp_path / "state.stopped").exists()


@pytest.mark.parametrize("name", TRAINED)
def test_a_disk_that_is_full_at_the_end_says_so_and_loses_no_step(
    name: str, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, method = pictures(tmp_path / "pictures", [(16, 16)]), make(name, base)

    def full(self: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write = Path.write_text
    with monkeypatch.context() as patch:
        patch.setattr(
            Path, "write_text", lambda path, text: full(path, text) if "partial" in str(path) else write(path, text)
        )
        patch.setattr(progress.Progress, "step", step_that_saves)
        with pytest.raises(UserError, match=r"no room to write .*state; free some, then --retry-failed"):
            set_up(method, subject, tmp_path / "state")
    assert not list(tmp_path.glob("state*partial*")) and not (tmp_path / "state").exists()
    module = module_of(name)
    monkeypatch.setattr(module, "denoising_errors", lambda *_: pytest.fail("trained again"))
    set_up(method, subject, tmp_path / "state")
    assert (tmp_path / "state" / "state.json").is_file()


def step_that_saves(kept: progress.Progress, loss: float) -> None:
    kept.losses.append(loss)
    kept._save()


def test_a_disk_without_room_for_the_result_is_noticed_before_the_training(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress.shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    monkeypatch.setattr(dreambooth, "denoising_errors", lambda *_: pytest.fail("trained"))
    with pytest.raises(UserError, match=r"no room for the result at .*: 100 bytes of [\d,]+ are free"):
        set_up(make("dreambooth", base), pictures(tmp_path / "pictures", [(16, 16)]), tmp_path / "state")


def test_another_error_of_the_disk_is_not_taken_for_a_full_one(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), progress.room(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")
