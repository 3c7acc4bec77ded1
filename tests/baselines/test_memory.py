"""What saves memory changes nothing else; and the benchmark counts what a step keeps."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from baselines.finetuning import adamw
from baselines.textual_inversion import TextualInversion
from benchmarks import memory
from tests.baselines.test_baselines import make
from umm_bench.base import Base
from umm_bench.errors import UserError
from umm_bench.methods import Case, Subject


def losses_and_kept(name: str, base: Base, subject: Subject, checkpointing: bool) -> tuple[list[float], int]:
    """Of a training of three steps: the losses, and how many bytes autograd keeps for the backward pass of one."""
    method, kept = make(name, base, gradient_checkpointing=checkpointing), {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    if isinstance(method, TextualInversion):
        training = method.train(subject, method.initial_rows(subject))
    else:
        case = Case((subject,))
        training = method.train(case, method.trainable_unet(case), None, method.trainable_text_encoder(case))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        losses = [next(training)[1]]
    return [*losses, *(loss for _, loss in training)], sum(kept.values())


@pytest.mark.parametrize("name", ["textual_inversion", "dreambooth", "dreambooth_lora", "custom_diffusion"])
def test_gradient_checkpointing_keeps_less_and_learns_the_same(name: str, base: Base, subject: Subject) -> None:
    plain, much = losses_and_kept(name, base, subject, checkpointing=False)
    saving, less = losses_and_kept(name, base, subject, checkpointing=True)
    assert saving == pytest.approx(plain, abs=1e-6)
    assert less < 0.8 * much
    assert not base.pipeline().unet.is_gradient_checkpointing


def test_eight_bits_are_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(UserError, match="pip install bitsandbytes"):
        adamw([parameter], 1e-3, 0.0, in_8_bits=True)

    class AdamW8bit(torch.optim.AdamW):
        pass

    optim = ModuleType("bitsandbytes.optim")
    optim.AdamW8bit = AdamW8bit  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bitsandbytes", ModuleType("bitsandbytes"))
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", optim)
    made = adamw([parameter], 1e-3, 0.01, in_8_bits=True)
    assert isinstance(made, AdamW8bit) and made.defaults["lr"] == 1e-3 and made.defaults["weight_decay"] == 0.01
    assert type(adamw([parameter], 1e-3, 0.0, in_8_bits=False)) is torch.optim.AdamW


def test_an_adapter_is_float32_on_a_frozen_bfloat16(base: Base, subject: Subject) -> None:
    base.pipeline().unet.to(torch.bfloat16)
    unet = make("dreambooth_lora", base, mixed_precision="bf16").trainable_unet(Case((subject,)))
    dtypes = {(parameter.requires_grad, parameter.dtype) for parameter in unet.parameters()}
    assert dtypes == {(True, torch.float32), (False, torch.bfloat16)}
    whole = make("dreambooth_lora", base).trainable_unet(Case((subject,)))
    assert {parameter.dtype for parameter in whole.parameters()} == {torch.float32}


def test_the_benchmark_counts_activations_and_no_weights(tiny_folder: Path) -> None:
    unet = Base("tiny", str(tiny_folder)).pipeline().unet.to("meta", torch.bfloat16).train()
    (one, plain), (two, _) = memory.activations(unet, 1), memory.activations(unet, 2)
    assert 0 < one < plain
    assert 1.8 < two / one <= 2.05  # what is kept grows with the batch, and weights do not count
