"""The training loop: a resumed run is the unbroken run, bit for bit; other configurations and NaNs are refused."""

import dataclasses

import pytest
import torch

from umm_bench.errors import UserError
from umm_bench.mini import pretrain
from umm_bench.mini.recipes.common import TrainConfig, fit, learning_rate_at


class _Line:
    """Fits a line; the data are a function of the step."""

    name = "line"

    def __init__(self, scale: float = 1.0) -> None:
        torch.manual_seed(0)
        self.module, self.scale = torch.nn.Linear(4, 1), scale

    def loss(self, step: int) -> torch.Tensor:
        x = torch.randn(16, 4)
        return self.scale * (self.module(x) - x.sum(1, keepdim=True)).square().mean()

    def save(self, folder) -> None: ...

    def load(self, folder) -> None: ...


CONFIG = TrainConfig(steps=30, learning_rate=0.05, warmup=5)


def _run(folder, config=CONFIG, stop=None):
    recipe = _Line()
    losses = []
    training = fit(recipe, config, folder)
    for progress in training:
        losses.append(progress.loss)
        if progress.step == stop:
            break
    training.close()
    return recipe.module.weight.detach().clone(), losses


def test_resume_is_bitwise_the_unbroken_run(tmp_path):
    whole, losses = _run(tmp_path / "a")
    _, before = _run(tmp_path / "b", stop=11)
    resumed, after = _run(tmp_path / "b")
    assert torch.equal(whole, resumed) and before + after == losses
    assert losses[-1] < losses[0]


def test_a_half_written_checkpoint_is_never_read(tmp_path):
    _run(tmp_path / "a", stop=11)
    (tmp_path / "a" / "checkpoint").rename(tmp_path / "a" / "checkpoint.old")  # killed between two renames
    _, after = _run(tmp_path / "a")
    assert len(after) == 19


def test_another_configuration_is_refused(tmp_path):
    _run(tmp_path / "a", stop=5)
    with pytest.raises(UserError, match="was made with"):
        _run(tmp_path / "a", dataclasses.replace(CONFIG, learning_rate=0.1))


def test_a_nan_stops_the_run(tmp_path):
    with pytest.raises(UserError, match="loss is nan"):
        list(fit(_Line(scale=float("nan")), CONFIG, tmp_path))


def test_learning_rate_rises_holds_and_falls():
    rates = [learning_rate_at(step, CONFIG) for step in range(30)]
    assert rates[0] < rates[4] == rates[15] == 0.05 > rates[-1]


def test_an_unknown_name_is_one_line_and_exit_code_2(capsys):
    assert pretrain.main(["nosuch"]) == 2
    assert "unknown mini model" in capsys.readouterr().err
