"""The training loop that all recipes share: seeded by step, averaged, checkpointed whole or not at all, resumable.

Batches are made ahead by worker processes where asked for; the forward pass runs in bfloat16 where that is fast.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from atomic import whole_folder
from umm_bench.errors import UserError
from umm_bench.mini.recipes.optimizers import memory, optimizers, remember
from umm_bench.weights import first_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Recipe(Protocol):
    """What differs between recipes: a module, its data, its loss, and how to ship."""

    name: str
    module: torch.nn.Module  # trainable parts only; what is frozen stays out of it
    config: Any  # a frozen dataclass; a checkpoint belongs to it
    batch_size: int

    def batch(self, step: int) -> Any:
        """The data of a step, a function of the step alone: nested tuples, lists and dicts with tensors on the CPU."""

    def loss(self, batch: Any) -> torch.Tensor:
        """The scalar loss of a batch that is on the module's device; its random draws are torch's."""

    def save(self, folder: Path) -> None:
        """Write `module` into `folder` in the model's own library's format."""

    def load(self, folder: Path) -> None:
        """Take `module`'s weights from what `save` wrote."""

    def parts(self) -> list[Path]:
        """Folders of the finished models that this one contains."""


def run_folder(name: str, image_size: int = 64) -> Path:
    """Where a recipe keeps its checkpoint and the parts that others build on."""
    return Path("runs") / ("mini" if image_size == 64 else f"mini-{image_size}") / name


def load_weights(module: PreTrainedModel, folder: Path) -> None:
    """Give `module` the weights saved in `folder`. UserError where those are of another kind or of other sizes."""
    kind, saved = module.config.model_type, json.loads((folder / "config.json").read_text()).get("model_type")
    if saved != kind:
        raise UserError(f"{folder} holds a {saved}, this recipe trains a {kind}; leave out --warm-start")
    weights = type(module).from_pretrained(folder, dtype=torch.float32).state_dict()
    if {n: t.shape for n, t in weights.items()} != {n: t.shape for n, t in module.state_dict().items()}:
        raise UserError(f"{folder} holds a {saved} of other sizes than this recipe trains; leave out --warm-start")
    module.load_state_dict(weights)


@dataclass(frozen=True)
class TrainConfig:
    """`warmup` steps up, constant, then a linear fall over the last `decay` share of `steps` (so that a longer
    run of the same recipe continues from where a shorter one was still constant).
    `muon`: by Muon, what is a matrix."""

    steps: int
    learning_rate: float = 1e-3
    warmup: int = 100
    decay: float = 0.25
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    ema: float = 0.998
    muon: bool = False
    seed: int = 0
    save_seconds: float = 120.0


@dataclass(frozen=True)
class Runtime:
    """Where and how a recipe runs; nothing in it is part of what a checkpoint must match.

    `dtype` is that of the forward pass (weights stay float32); `workers` processes make batches ahead, 0 makes them in
    this one; `compile` hands the module's parts to torch.compile.
    """

    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    workers: int = 0
    compile: bool = False

    @classmethod
    def detect(cls, device: str | None = None, workers: int | None = None, compile: bool = False) -> Runtime:
        """The GPU where there is one, bfloat16 where the processor multiplies it in hardware.

        Raises UserError for a device that is not here.
        """
        chosen = _device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if chosen.type == "cuda":
            fast, ahead = torch.cuda.is_bf16_supported(), max(1, (os.cpu_count() or 2) - 1)
        else:
            # _is_amx_tile_supported: AVX512-BF16 alone gains little, AMX four times a float32 product.
            fast, ahead = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported(), 0
        dtype = torch.bfloat16 if fast else torch.float32
        return cls(chosen, dtype, ahead if workers is None else workers, compile)


def _device(name: str) -> torch.device:
    try:
        chosen = torch.device(name)
        if chosen.type in ("cpu", "cuda"):
            torch.empty(0, device=chosen)
            return chosen
    except (RuntimeError, AssertionError, ValueError):
        pass
    raise UserError(f"--device {name}: there is no such device here; give cpu, or cuda where there is a GPU")


def to_device(data: Any, device: torch.device) -> Any:
    """A batch with its tensors on `device`, whatever it is nested in."""
    if isinstance(data, torch.Tensor):
        return data.to(device, non_blocking=True)
    if isinstance(data, dict):
        return {key: to_device(value, device) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return type(data)(to_device(value, device) for value in data)
    if dataclasses.is_dataclass(data) and not isinstance(data, type):
        return dataclasses.replace(data, **{k: to_device(v, device) for k, v in vars(data).items()})
    return data


class _Function(torch.utils.data.Dataset):
    """A function by its argument, for DataLoader's workers."""

    def __init__(self, function: Callable[[int], Any]) -> None:
        self.function = function

    def __getitem__(self, i: int) -> Any:
        return self.function(i)


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a worker has nothing to save


def made_ahead(function: Callable[[int], Any], items: Iterable[int], workers: int) -> Iterable[Any]:
    """`function` of each of `items`, in order; made ahead by `workers` processes, 0 in this one."""
    return torch.utils.data.DataLoader(
        _Function(function),
        batch_size=None,
        sampler=items,
        num_workers=workers,
        worker_init_fn=_start_worker,
        collate_fn=_as_it_is,
        prefetch_factor=4 if workers else None,
    )


def _as_it_is(batch: Any) -> Any:
    return batch


@dataclass(frozen=True)
class Progress:
    """The state after a step; `loss` is NaN-free by construction (training stops on a NaN)."""

    step: int
    steps: int
    loss: float
    learning_rate: float
    seconds: float


def schedule(step: int, config: TrainConfig) -> float:
    """The share of the peak learning rates at a step: warm-up, stable, decay."""
    fall = config.steps * config.decay
    left = (config.steps - step) / fall if fall else 1.0
    return min(1.0, (step + 1) / max(1, config.warmup)) * max(0.02, min(1.0, left))


class Average:
    """Exponential moving average of what a training changes, with the usual warm-up of the rate.

    That is the trainable parameters and batch norms' statistics: those of the last weights do not fit the averages.
    """

    def __init__(self, module: torch.nn.Module, rate: float) -> None:
        self.rate = rate
        self.values = {name: t.detach().clone() for name, t in self._live(module).items()}

    @staticmethod
    def _live(module: torch.nn.Module) -> dict[str, torch.Tensor]:
        trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        return trained | {name: b for name, b in module.named_buffers() if b.is_floating_point() and b.numel()}

    def update(self, module: torch.nn.Module, step: int) -> None:
        rate = min(self.rate, (1 + step) / (10 + step))
        live = self._live(module)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.values.values()), [live[n] for n in self.values], 1 - rate)

    def swap(self, module: torch.nn.Module) -> None:
        """Exchange the module's tensors with their averages (call again to undo)."""
        with torch.no_grad():
            for name, live in self._live(module).items():
                if name in self.values:
                    kept = live.detach().clone()
                    live.copy_(self.values[name])
                    self.values[name] = kept


def save_checkpoint(
    folder: Path, module: torch.nn.Module, used: list[torch.optim.Optimizer], average: Average, state: dict
) -> None:
    """Module, averages and optimizers as safetensors, the rest as JSON."""
    trainable = {n: p.detach().contiguous() for n, p in module.named_parameters() if p.requires_grad}
    with whole_folder(folder) as unfinished:
        save_file(trainable, unfinished / "module.safetensors")
        save_file(
            {n: b.contiguous() for n, b in module.named_buffers() if b.numel()}, unfinished / "buffers.safetensors"
        )
        save_file(average.values, unfinished / "average.safetensors")
        save_file(memory(used), unfinished / "optimizer.safetensors")
        (unfinished / "state.json").write_text(json.dumps(state, indent=1))


def _read_checkpoint(folder: Path) -> tuple[dict[str, Any], dict[str, dict[str, torch.Tensor]]]:
    """What `save_checkpoint` wrote. UserError for a folder that is damaged."""
    try:
        state = json.loads((folder / "state.json").read_text())
        state["fingerprint"], int(state["step"]), float(state["seconds"])
        names = ("module", "buffers", "average", "optimizer")
        return state, {name: load_file(folder / f"{name}.safetensors") for name in names}
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(_damaged(folder, error)) from error


def _damaged(folder: Path, error: Exception) -> str:
    return f"{folder} is damaged ({first_line(error)}); remove it to start anew, or restore it"


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What a checkpoint was made with that is otherwise now: a setting, or one that an earlier version did not know."""
    was, now = ({**fingerprint.get("recipe", {}), **fingerprint} for fingerprint in (old, new))
    changed = [
        f"{name}={was.get(name, 'nothing')} (now {now.get(name, 'gone')})"
        for name in dict.fromkeys([*now, *was])
        if name != "recipe" and was.get(name) != now.get(name)
    ]
    return f"was made with {', '.join(changed[:4])}{' and more' if len(changed) > 4 else ''}"


def fit(
    recipe: Recipe, config: TrainConfig, folder: Path, runtime: Runtime = Runtime()
) -> Generator[Progress, None, None]:
    """Train `recipe.module`, yielding after each step; resumes from `folder`/checkpoint.

    At the end, or when the caller stops (closes the generator), a checkpoint is written and the averages are left in
    the module. What ends a step halfway, an exception or a signal, leaves the checkpoint before it. Raises UserError
    when the checkpoint belongs to another configuration or lies beyond `config.steps`, and when the loss or its
    gradient is not finite, before that reaches the weights.
    """
    checkpoint = folder / "checkpoint"
    old = checkpoint.with_name("checkpoint.old")
    if old.exists() and not checkpoint.exists():
        os.replace(old, checkpoint)
    fingerprint = {
        "recipe": {"name": recipe.name, **json.loads(json.dumps(dataclasses.asdict(recipe.config)))},
        **{k: v for k, v in dataclasses.asdict(config).items() if k not in ("steps", "save_seconds", "decay")},
    }
    recipe.module.to(runtime.device)
    used = optimizers(recipe.module, config)
    average, start, seconds = Average(recipe.module, config.ema), 0, 0.0
    if checkpoint.exists():
        state, files = _read_checkpoint(checkpoint)
        if state["fingerprint"] != fingerprint:
            raise UserError(
                f"{checkpoint} {_difference(state['fingerprint'], fingerprint)}; train on as that was "
                "begun, or remove it (or name another --folder) to begin anew"
            )
        if state["step"] > config.steps:
            raise UserError(f"{checkpoint} has {state['step']} steps already, more than the {config.steps} asked for")
        try:
            recipe.module.load_state_dict(files["module"] | files["buffers"], strict=False)
            if {n: t.shape for n, t in files["average"].items()} != {n: t.shape for n, t in average.values.items()}:
                raise ValueError("its averages are of another model")
            average.values = to_device(files["average"], runtime.device)
            remember(used, files["optimizer"])
        except (ValueError, RuntimeError, KeyError, TypeError) as error:
            raise UserError(_damaged(checkpoint, error)) from error
        start, seconds = state["step"], state["seconds"]
    recipe.module.train()
    if runtime.compile:
        for part in recipe.module.children():
            part.compile(dynamic=False)
    saved, step, whole = time.monotonic(), start, False

    def save() -> None:
        state = {"step": step, "seconds": seconds, "device": runtime.device.type, "fingerprint": fingerprint}
        save_checkpoint(checkpoint, recipe.module, used, average, state)

    try:
        began = time.monotonic()
        steps = range(start, config.steps)
        for batch in made_ahead(recipe.batch, steps, runtime.workers) if steps else ():
            torch.manual_seed(config.seed * 1_000_003 + step)
            with torch.autocast(runtime.device.type, runtime.dtype, enabled=runtime.dtype != torch.float32):
                loss = recipe.loss(to_device(batch, runtime.device))
            _refuse_infinite(f"{recipe.name}: the loss", loss, step)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(recipe.module.parameters(), config.max_grad_norm)
            _refuse_infinite(f"{recipe.name}: the gradient", norm, step)
            share = schedule(step, config)
            for optimizer in used:
                for group in optimizer.param_groups:
                    group["lr"] = share * config.learning_rate
                optimizer.step()
            recipe.module.zero_grad()
            average.update(recipe.module, step)
            step += 1
            seconds += time.monotonic() - began
            if time.monotonic() - saved > config.save_seconds:
                save()
                saved = time.monotonic()
            whole = True
            yield Progress(step, config.steps, loss.item(), config.learning_rate * share, seconds)
            whole = False
            began = time.monotonic()
        whole = True
    finally:
        if whole and step > start:
            save()
        average.swap(recipe.module)
        recipe.module.to("cpu").eval()


def _refuse_infinite(what: str, value: torch.Tensor, step: int) -> None:
    if not math.isfinite(value.item()):
        raise UserError(f"{what} is {value.item()} at step {step}; the checkpoint before it is intact")
