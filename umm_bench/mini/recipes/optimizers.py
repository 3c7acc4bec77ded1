"""What changes the weights of a training: AdamW, or Muon for the matrices and AdamW for what is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from umm_bench.mini.recipes.common import TrainConfig


def optimizers(module: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """One optimizer or two over the trainable parameters, each of them in one.

    With `config.muon` the weights of linear and convolutional layers are Muon's (2502.16982), at AdamW's rate.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    layers = [m for m in module.modules() if isinstance(m, nn.Linear | nn.Conv2d)] if config.muon else []
    matrices = list({id(m.weight): m.weight for m in layers if m.weight.requires_grad}.values())
    theirs = {id(weight) for weight in matrices}
    adamw = torch.optim.AdamW(
        [p for p in trained if id(p) not in theirs],
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        betas=(0.9, 0.98),
        fused=True,  # a third of the plain loop's time on a CPU
    )
    if not matrices:
        return [adamw]
    muon = torch.optim.Muon(
        [as_matrix(weight) for weight in matrices],
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    return [adamw, muon]


def as_matrix(weight: torch.Tensor) -> torch.Tensor:
    """A weight [out, ...] as the matrix [out, rest] that Muon asks for: the same memory, and its gradient's too."""
    if weight.ndim == 2:
        return weight
    matrix = nn.Parameter(weight.detach().flatten(1))

    def share_gradient(of: torch.Tensor) -> None:
        assert of.grad is not None
        matrix.grad = of.grad.flatten(1)

    weight.register_post_accumulate_grad_hook(share_gradient)
    return matrix


def memory(of: Sequence[torch.optim.Optimizer]) -> dict[str, torch.Tensor]:
    """Everything the optimizers remember, by the running number of the parameter and the name."""
    found: dict[str, torch.Tensor] = {}
    for first, optimizer in zip(_firsts(of), of, strict=True):
        state = optimizer.state_dict()["state"]
        found |= {f"{first + i}.{k}": torch.as_tensor(v) for i, entry in state.items() for k, v in entry.items()}
    return found


def remember(of: Sequence[torch.optim.Optimizer], tensors: dict[str, torch.Tensor]) -> None:
    """Take what `memory` gave."""
    for first, optimizer in zip(_firsts(of), of, strict=True):
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            i, name = key.split(".", 1)
            if first <= int(i) < first + _number(optimizer):
                state.setdefault(int(i) - first, {})[name] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _number(optimizer: torch.optim.Optimizer) -> int:
    return sum(len(group["params"]) for group in optimizer.param_groups)


def _firsts(of: Sequence[torch.optim.Optimizer]) -> list[int]:
    numbers = [_number(optimizer) for optimizer in of]
    return [sum(numbers[:i]) for i in range(len(numbers))]
