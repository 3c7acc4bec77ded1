"""What fine-tuning takes of a graphics processor's memory at Stable Diffusion 1.5's sizes: python -m benchmarks.memory.

Computed, not measured: the exact models are laid out without weights (torch's meta device) and run forward, and what
autograd would keep is counted. A step needs, at its peak:

- the base in bfloat16 (`--dtype bfloat16`): UNet, text encoder and VAE stay loaded;
- what is trained in float32, with gradients and the optimizer's memory, and the bfloat16 copies that autocast makes;
- with gradient checkpointing the inputs of the checkpointed layers, and what the largest of them keeps meanwhile.

Attention is taken to be fused, so that its matrices are not kept. What the allocator wastes comes on top of it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from baselines.custom_diffusion import StableDiffusionCustomDiffusion, text_layers
from baselines.dreambooth import DreamBoothConfig, StableDiffusionDreamBooth
from baselines.dreambooth_lora import ATTENTION_PROJECTIONS, StableDiffusionDreamBoothLora
from baselines.textual_inversion import StableDiffusionTextualInversion
from benchmarks.stacks import sd15_parts
from figures import Figure, emit
from umm_bench.cli.arguments import Parser
from umm_bench.cli.commands import quiet_libraries, run_command

GIGABYTE = 1e9
LENGTH = 77
CHECKPOINTED = (ResnetBlock2D, BasicTransformerBlock)


class Kept:
    """Bytes that autograd keeps of tensors that are no weights; attention's own matrices are left out."""

    def __init__(self, weights: set[int]) -> None:
        self.weights, self.bytes = weights, {0: 0}

    def __call__(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        matrix = (tensor.ndim == 3 and tensor.shape[1] == tensor.shape[2] > LENGTH) or tensor.shape[-1] == LENGTH
        if storage._cdata not in self.weights and not matrix:
            self.bytes[storage._cdata] = storage.nbytes()
        return tensor

    @property
    def total(self) -> int:
        return sum(self.bytes.values())


def activations(unet: UNet2DConditionModel, batch: int) -> tuple[int, int]:
    """Bytes kept at a batch: of all layers with gradient checkpointing, its largest layer in the making included, and
    without it. The UNet is one on the meta device, in bfloat16."""
    weights = {parameter.untyped_storage()._cdata for parameter in unet.parameters()}
    largest = 0

    def run(checkpointing: bool) -> int:
        nonlocal largest
        kept = Kept(weights)
        before: dict[nn.Module, int] = {}

        def enters(module: nn.Module, *_: Any) -> None:
            before[module] = kept.total

        def leaves(module: nn.Module, *_: Any) -> None:
            nonlocal largest
            largest = max(largest, kept.total - before[module])

        watched = [module for module in unet.modules() if isinstance(module, CHECKPOINTED)]
        hooks: list[Any] = []
        if not checkpointing:
            hooks = [module.register_forward_pre_hook(enters) for module in watched]
            hooks += [module.register_forward_hook(leaves) for module in watched]
        (unet.enable_gradient_checkpointing if checkpointing else unet.disable_gradient_checkpointing)()
        with torch.device("meta"), torch.autograd.graph.saved_tensors_hooks(kept, lambda tensor: tensor):
            size, width = unet.config.sample_size, unet.config.cross_attention_dim
            z = torch.empty((batch, 4, size, size), dtype=torch.bfloat16)
            unet(z, torch.zeros(batch), torch.empty((batch, LENGTH, width), dtype=torch.bfloat16))
        for hook in hooks:
            hook.remove()
        return kept.total

    whole = run(checkpointing=False)
    return run(checkpointing=True) + largest, whole


def both(config: DreamBoothConfig) -> int:
    """Latents a step: pictures of the subject, and of its class where they are learnt beside it."""
    return config.batch_size * (1 + bool(config.num_class_images))


def figures() -> Iterator[Figure]:
    with torch.device("meta"):
        parts = sd15_parts()
    unet: Any = parts["unet"].to(torch.bfloat16).train()
    size = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    base = 2 * sum(size.values())
    layers = [
        m for name, m in unet.named_modules() if name.endswith(ATTENTION_PROJECTIONS) and isinstance(m, nn.Linear)
    ]

    def of(name: str, trained: int, copied: int, per_step: int, adam: int, bar: float) -> Figure:
        checkpointed, whole = activations(unet, per_step)
        fixed = base + copied + trained * (4 + 4 + 2 + adam)
        value = (fixed + checkpointed) / GIGABYTE
        note = f"{trained / 1e6:,.2f} M trained, {per_step} latents a step; {(fixed + whole) / GIGABYTE:.1f} without "
        note += "gradient checkpointing" + ("; AdamW in 8 bits" if adam == 2 else "")
        return Figure(f"memory.{name}", round(value, 2), "GB", False, bar, note)

    full, lora, custom, inversion = (
        StableDiffusionDreamBooth(),
        StableDiffusionDreamBoothLora(),
        StableDiffusionCustomDiffusion(),
        StableDiffusionTextualInversion(),
    )
    yield of("dreambooth", size["unet"], 0, both(full), 2, 16)
    rank = lora.rank * sum(layer.in_features + layer.out_features for layer in layers)
    yield of("dreambooth_lora", rank, 2 * size["unet"], both(lora), 8, 8)
    width = unet.config.cross_attention_dim
    read = sum(layer.weight.numel() for layer in text_layers(unet).values()) + width
    yield of("custom_diffusion", read, 4 * size["unet"] + 4 * size["text_encoder"], both(custom), 8, 16)
    yield of("textual_inversion", width, 2 * size["text_encoder"], inversion.batch_size, 8, 6)


def main(argv: list[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object a figure")
    quiet_libraries()
    return run_command(lambda: emit(figures(), parser.parse_args(argv).json))


if __name__ == "__main__":
    sys.exit(main())
