"""A fine-tune that can be cut off anywhere: what is done of it, and state that is whole or absent."""

import errno
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from baselines.finetuning import Diverged
from umm_bench.errors import UserError
from umm_bench.seeding import digest

STATE_FILE = "state.json"


def is_complete(directory: Path, record: dict[str, Any]) -> bool:
    """Whether `directory` holds the finished state of exactly this `record` (JSON values only)."""
    try:
        return json.loads((directory / STATE_FILE).read_text())["record"] == json.loads(json.dumps(record))
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        return False


class Progress:
    """How far a fine-tune has come, kept beside `directory`, so that a kill costs at most the time since the last save.

    Saving takes a twentieth of the time at most: what is small is saved every few seconds, a whole UNet less often,
    and never where the disk would be left with less room than it takes.

    `record` is what makes it, a `config` with `steps` and `curve` among it. With a curve, the last state of a point is
    where the next one begins, so that all points are of one training; the last point leaves nothing behind.
    UserError where there is no room.
    """

    def __init__(self, directory: Path, record: dict[str, Any]) -> None:
        self._record = json.loads(json.dumps(record))
        config = self._record["config"]
        self.losses: list[float] = []
        self.seconds_before = 0.0
        self._goes_on = config["steps"] < max(config["curve"], default=0)
        self._line = self._record
        self.folder = directory.with_name(f"{directory.name}.unfinished")
        if config["curve"]:
            self._line = {**self._record, "config": {**config, "steps": None}}
            self.folder = directory.with_name(f"{digest(self._line)}.curve")
        self._began = self._saved = time.monotonic()
        self._pause = 5.0
        if is_complete(self.folder, self._line):
            self.seconds_before = json.loads((self.folder / STATE_FILE).read_text())["seconds"]
        else:
            with room(self.folder):
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder.mkdir(parents=True)
                self._note()

    def begin(self, parameters: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer, steps: int) -> int:
        """Put back what was saved of the parameters and of their optimizer; the step to go on with, from 0 to `steps`.

        UserError where the disk has no room for the result.
        """
        self._parameters, self._optimizer = parameters, optimizer
        least = 2 * sum(parameter.numel() for parameter in parameters)  # in half precision
        free = shutil.disk_usage(self.folder).free
        if free < least:
            raise UserError(f"no room for the result at {self.folder.parent}: {free:,} bytes of {least:,} are free")
        state = json.loads((self.folder / STATE_FILE).read_text())
        if len(state["losses"]) > steps:  # the curve has gone past this point before
            self.seconds_before = 0.0
            return 0
        if not state["losses"]:
            return 0
        try:
            tensors = load_file(self.folder / f"{len(state['losses'])}.safetensors")
        except (OSError, SafetensorError):  # a disk that lost it: from the start, then
            return 0
        self.losses = state["losses"]
        memory: dict[int, dict[str, Tensor]] = {}
        with torch.no_grad():
            for i, parameter in enumerate(parameters):
                parameter.copy_(tensors.pop(str(i)))
        for name, tensor in tensors.items():
            i_text, key = name.split(".", 1)
            memory.setdefault(int(i_text), {})[key] = tensor
        optimizer.load_state_dict({"state": memory, "param_groups": optimizer.state_dict()["param_groups"]})
        return len(self.losses)

    def step(self, loss: float) -> None:
        """Note a step that is done, and save where that is due."""
        self.losses.append(loss)
        if time.monotonic() - self._saved >= self._pause:
            self._save()

    def _save(self) -> None:
        start = time.monotonic()
        tensors = {str(i): p.detach() for i, p in enumerate(self._parameters)}
        for i, entry in self._optimizer.state_dict()["state"].items():
            tensors |= {f"{i}.{key}": torch.as_tensor(value) for key, value in entry.items()}
        if shutil.disk_usage(self.folder).free < 2 * sum(tensor.nbytes for tensor in tensors.values()):
            self._pause = math.inf
            return
        path = self.folder / f"{len(self.losses)}.safetensors"
        with room(path):
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
            self._note()  # from here on it is this one
        for other in self.folder.glob("*.safetensors"):
            if other != path:
                other.unlink()
        self._saved = time.monotonic()
        self._pause = max(5.0, 20 * (self._saved - start))

    def _note(self) -> None:
        seconds = self.seconds_before + time.monotonic() - self._began
        state = {"record": self._line, "losses": self.losses, "seconds": seconds}
        partial = self.folder / f"{STATE_FILE}.part"
        partial.write_text(json.dumps(state))
        partial.replace(self.folder / STATE_FILE)

    def finish(self, directory: Path, write: Callable[[Path], None]) -> None:
        """`save_state`, after which nothing is unfinished but the way to the next point of a curve."""
        if self._goes_on:
            self._save()
        trained = sum(parameter.numel() for parameter in self._parameters)
        save_state(directory, self._record, self.losses, write, self.seconds_before, trained)
        if not self._goes_on:
            shutil.rmtree(self.folder)

    def stop(self, directory: Path, write: Callable[[Path], None], why: Diverged) -> UserError:
        """Keeps the last weights that are numbers, for whoever wants to look; what to raise."""
        if not self.losses or not all(bool(torch.isfinite(p).all()) for p in self._parameters):
            return why
        kept = directory.with_name(f"{directory.name}.stopped")
        trained = sum(parameter.numel() for parameter in self._parameters)
        save_state(kept, {"stopped": str(why)}, self.losses, write, self.seconds_before, trained)
        return UserError(f"{why}; the state after step {len(self.losses)} is kept in {kept}")


def fine_tune(
    directory: Path,
    record: dict[str, Any],
    train: Callable[[Progress], Iterable[tuple[int, float]]],
    write: Callable[[Path], None],
) -> None:
    """Trains to the end, from where a former call was cut off, and lets `write` save the result to `directory`.

    UserError where it diverges, or where the disk is full.
    """
    progress = Progress(directory, record)
    try:
        for _ in train(progress):
            pass
    except Diverged as why:
        raise progress.stop(directory, write, why) from why
    progress.finish(directory, write)


def save_state(
    directory: Path,
    record: dict[str, Any],
    losses: list[float],
    write: Callable[[Path], None],
    seconds_before: float = 0.0,
    trained_parameters: int = 0,
) -> None:
    """Lets `write` fill a folder beside `directory`, then moves it in place: no half state is ever found.

    `seconds_before` is what was spent in calls that were cut off, which the bench counts too, as it notes the steps
    and the number of trained parameters. UserError where there is no room.
    """
    partial = directory.with_name(f"{directory.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    state = {"record": record, "losses": losses, "seconds_before": seconds_before}
    state |= {"steps": len(losses), "trained_parameters": trained_parameters}
    try:
        with room(directory):
            partial.mkdir(parents=True)
            write(partial)
            (partial / STATE_FILE).write_text(json.dumps(state, indent=1))
    except UserError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if directory.exists():
        shutil.rmtree(directory)
    partial.replace(directory)


@contextmanager
def room(path: Path) -> Iterator[None]:
    """A disk without room becomes a UserError that says where."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
        if not full:
            raise
        raise UserError(
            f"no room to write {path}; free some, then --retry-failed goes on from the last save"
        ) from error
