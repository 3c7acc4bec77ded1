"""bfloat16 forward passes over float32 weights."""

from dataclasses import replace

import pytest
import torch

from baselines import finetuning
from baselines.finetuning import precision_of
from tests.baselines.test_baselines import CLASSES, make
from umm_bench.base import Base
from umm_bench.methods import Case, Subject

TRAINED = ["textual_inversion", "dreambooth", "dreambooth_lora", "custom_diffusion"]


@pytest.mark.parametrize("name", TRAINED)
def test_bf16_is_the_same_training_but_for_its_rounding(name: str, base: Base, subject: Subject) -> None:
    losses, dtypes = {}, set()
    for precision in ("no", "bf16"):
        method = make(name, base, steps=4, mixed_precision=precision)
        if name == "textual_inversion":
            target, trained = subject, method.initial_rows(subject)
        else:
            target, trained = Case((subject,)), method.trainable_unet(Case((subject,)))
        losses[precision] = [loss for _, loss in method.train(target, trained)]
        parameters = [trained] if name == "textual_inversion" else list(trained.parameters())
        dtypes |= {parameter.dtype for parameter in parameters}
    assert losses["no"] != losses["bf16"] and losses["bf16"] == pytest.approx(losses["no"], rel=0.03)
    assert dtypes == {torch.float32}
    assert base.pipeline().unet.dtype == torch.float32


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_the_precision_is_the_devices_and_is_a_setting(
    precision: str, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetuning, "choose_precision", lambda asked, device: precision)
    assert precision_of(base) == precision
    for name in TRAINED:
        defaults = CLASSES[name].defaults(base)
        assert defaults.mixed_precision == precision and replace(defaults, mixed_precision="no").steps == defaults.steps
