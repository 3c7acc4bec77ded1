"""Muon beside AdamW: every parameter is changed by one of them, a convolution as the matrix that it is."""

import dataclasses

import pytest
import torch
from torch import nn

from umm_bench.mini.recipes.common import TrainConfig, fit
from umm_bench.mini.recipes.optimizers import as_matrix, memory, optimizers, remember

CONFIG = TrainConfig(steps=60, learning_rate=0.05, warmup=2, muon=True)


class _Picture:
    """A convolution, a norm and a linear layer fit a sum."""

    name, config, batch_size = "picture", TrainConfig(steps=1), 8

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(16, 1))

    def batch(self, step: int) -> torch.Tensor:
        return torch.randn(8, 2, 4, 4, generator=torch.Generator().manual_seed(step))

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        return (self.module(x)[:, 0] - x.sum((1, 2, 3))).square().mean()

    def save(self, folder) -> None: ...

    def load(self, folder) -> None: ...

    def parts(self):
        return []


def test_each_parameter_is_in_one_optimizer():
    recipe = _Picture()
    adamw, muon = optimizers(recipe.module, CONFIG)
    number = [sum(p.numel() for group in o.param_groups for p in group["params"]) for o in (adamw, muon)]
    assert number == [4 + 8 + 1, 4 * 18 + 16]  # biases and the norm; the two layers' weights
    assert len(optimizers(recipe.module, dataclasses.replace(CONFIG, muon=False))) == 1


def test_a_convolution_changes_as_its_matrix_would():
    torch.manual_seed(1)
    conv, x = nn.Conv2d(3, 5, 2, bias=False), torch.randn(2, 3, 4, 4)
    plain = nn.Parameter(conv.weight.detach().flatten(1).clone())
    ours, theirs = torch.optim.Muon([as_matrix(conv.weight)]), torch.optim.Muon([plain])
    for _ in range(3):
        conv.zero_grad()
        conv(x).square().mean().backward()
        plain.grad = conv.weight.grad.flatten(1).clone()
        ours.step()
        theirs.step()
    assert torch.equal(conv.weight.flatten(1), plain)


def _run(folder, stop=None):
    recipe, losses = _Picture(), []
    training = fit(recipe, CONFIG, folder)
    for progress in training:
        losses.append(progress.loss)
        if progress.step == stop:
            break
    training.close()
    return recipe.module[0].weight.detach().clone(), losses


def test_resume_with_muon_is_the_unbroken_run(tmp_path):
    whole, losses = _run(tmp_path / "a")
    _, before = _run(tmp_path / "b", stop=5)
    resumed, after = _run(tmp_path / "b")
    assert torch.equal(whole, resumed) and before + after == losses
    assert sum(losses[-10:]) < sum(losses[:10])


def test_memory_is_told_apart():
    recipe = _Picture()
    used = optimizers(recipe.module, CONFIG)
    recipe.loss(recipe.batch(0)).backward()
    for optimizer in used:
        optimizer.step()
    kept = memory(used)
    fresh = optimizers(_Picture().module, CONFIG)
    remember(fresh, kept)
    again = memory(fresh)
    assert kept.keys() == again.keys() and all(torch.equal(kept[name], again[name]) for name in kept)
    assert {name.split(".")[1] for name in kept} == {"step", "exp_avg", "exp_avg_sq", "momentum_buffer"}


@pytest.mark.parametrize("frozen", [0, 3])
def test_a_frozen_layer_stays(frozen):
    recipe = _Picture()
    recipe.module[frozen].requires_grad_(False)
    before = recipe.module[frozen].weight.clone()
    recipe.loss(recipe.batch(0)).backward()
    for optimizer in optimizers(recipe.module, CONFIG):
        optimizer.step()
    assert torch.equal(before, recipe.module[frozen].weight)
