"""The training loop that all recipes share: seeded by step, averaged, checkpointed whole or not at all, resumable."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file

from umm_bench.errors import UserError


class Recipe(Protocol):
    """What differs between recipes: a module, a loss that is a function of (seed, step), and how to ship."""

    name: str
    module: torch.nn.Module  # trainable parts only; what is frozen stays out of it

    def loss(self, step: int) -> torch.Tensor: ...

    def save(self, folder: Path) -> None:
        """Write `module` into `folder` in the model's own library's format."""

    def load(self, folder: Path) -> None:
        """Take `module`'s weights from what `save` wrote."""


@dataclass(frozen=True)
class TrainConfig:
    """`warmup` steps up, constant, then a linear fall over the last `decay` share of `steps` (so that a longer
    run of the same recipe continues from where a shorter one was still constant)."""

    steps: int
    learning_rate: float = 1e-3
    warmup: int = 100
    decay: float = 0.25
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    ema: float = 0.998
    seed: int = 0
    save_seconds: float = 120.0


@dataclass(frozen=True)
class Progress:
    """The state after a step; `loss` is NaN-free by construction (training stops on a NaN)."""

    step: int
    steps: int
    loss: float
    learning_rate: float
    seconds: float


def learning_rate_at(step: int, config: TrainConfig) -> float:
    """Warm-up, stable, decay."""
    fall = config.steps * config.decay
    left = (config.steps - step) / fall if fall else 1.0
    return config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup)) * max(0.02, min(1.0, left))


class Average:
    """Exponential moving average of the trainable parameters, with the usual warm-up of the rate."""

    def __init__(self, module: torch.nn.Module, rate: float) -> None:
        self.rate = rate
        self.values = {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}

    def update(self, module: torch.nn.Module, step: int) -> None:
        rate = min(self.rate, (1 + step) / (10 + step))
        parameters = dict(module.named_parameters())
        with torch.no_grad():
            torch._foreach_lerp_(list(self.values.values()), [parameters[n] for n in self.values], 1 - rate)

    def swap(self, module: torch.nn.Module) -> None:
        """Exchange the module's parameters with their averages (call again to undo)."""
        with torch.no_grad():
            for name, p in module.named_parameters():
                if name in self.values:
                    kept = p.detach().clone()
                    p.copy_(self.values[name])
                    self.values[name] = kept


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{i}.{k}": torch.as_tensor(v) for i, entry in state.items() for k, v in entry.items()}


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _replace(temporary: Path, final: Path) -> None:
    """Put a finished folder in place; a kill leaves the old one (as .old) or the new one, never half of one."""
    old = final.with_name(final.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        os.replace(final, old)
    os.replace(temporary, final)
    shutil.rmtree(old, ignore_errors=True)


def save_checkpoint(
    folder: Path, module: torch.nn.Module, optimizer: torch.optim.Optimizer, average: Average, state: dict
) -> None:
    """Module, averages and optimizer as safetensors, the rest as JSON."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(folder.name + ".part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    trainable = {n: p.detach().contiguous() for n, p in module.named_parameters() if p.requires_grad}
    save_file(trainable, temporary / "module.safetensors")
    save_file({n: b.contiguous() for n, b in module.named_buffers() if b.numel()}, temporary / "buffers.safetensors")
    save_file(average.values, temporary / "average.safetensors")
    save_file(_optimizer_tensors(optimizer), temporary / "optimizer.safetensors")
    (temporary / "state.json").write_text(json.dumps(state, indent=1))
    _replace(temporary, folder)


def fit(recipe: Recipe, config: TrainConfig, folder: Path) -> Generator[Progress, None, None]:
    """Train `recipe.module`, yielding after each step; resumes from `folder`/checkpoint.

    At the end, or when the caller stops, a checkpoint is written and the averages are left in the module. Raises
    UserError when the checkpoint belongs to another configuration (steps may grow) and when the loss is not finite.
    """
    checkpoint = folder / "checkpoint"
    old = checkpoint.with_name("checkpoint.old")
    if old.exists() and not checkpoint.exists():
        os.replace(old, checkpoint)
    fingerprint = {
        "recipe": recipe.name,
        **{k: v for k, v in dataclasses.asdict(config).items() if k not in ("steps", "save_seconds", "decay")},
    }
    parameters = [p for p in recipe.module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98)
    )
    average, start, seconds = Average(recipe.module, config.ema), 0, 0.0
    if (checkpoint / "state.json").exists():
        state = json.loads((checkpoint / "state.json").read_text())
        if state["fingerprint"] != fingerprint:
            raise UserError(
                f"{checkpoint} was made with {state['fingerprint']}; resume with that or choose another folder"
            )
        recipe.module.load_state_dict(
            load_file(checkpoint / "module.safetensors") | load_file(checkpoint / "buffers.safetensors"), strict=False
        )
        average.values = load_file(checkpoint / "average.safetensors")
        _restore_optimizer(optimizer, load_file(checkpoint / "optimizer.safetensors"))
        start, seconds = state["step"], state["seconds"]
    recipe.module.train()
    saved, step = time.monotonic(), start

    def save() -> None:
        state = {"step": step, "seconds": seconds, "fingerprint": fingerprint}
        save_checkpoint(checkpoint, recipe.module, optimizer, average, state)

    try:
        while step < config.steps:
            began = time.monotonic()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(step, config)
            torch.manual_seed(config.seed * 1_000_003 + step)
            loss = recipe.loss(step)
            if not math.isfinite(loss.item()):
                raise UserError(f"{recipe.name}: the loss is {loss.item()} at step {step}; lower the learning rate")
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            average.update(recipe.module, step)
            step += 1
            seconds += time.monotonic() - began
            if time.monotonic() - saved > config.save_seconds:
                save()
                saved = time.monotonic()
            yield Progress(step, config.steps, loss.item(), group["lr"], seconds)
    finally:
        if step > start:
            save()
        average.swap(recipe.module)
        recipe.module.eval()
