"""What frozen models need not keep: a convolution saves its input for the weight's gradient, also where none is asked.

About a quarter of the activations that a UNet step keeps (2404.12406 describes the effect).
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_input
from torch.overrides import TorchFunctionMode


class _FrozenConv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *geometry: Any) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.geometry = x.shape, geometry
        return F.conv2d(x, weight, bias, *geometry)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        gradient = conv2d_input(ctx.shape, weight, gradients[0], *ctx.geometry)
        return gradient, None, None, *(None for _ in ctx.geometry)


class FrozenConvolutions(TorchFunctionMode):
    """Within it, 2-D convolutions with frozen parameters keep their input's shape alone for the backward pass."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.conv2d and not kwargs and args[0].requires_grad:
            frozen = not any(isinstance(part, Tensor) and part.requires_grad for part in args[1:3])
            if frozen and not isinstance(args[4] if len(args) > 4 else 0, str):
                return _FrozenConv2d.apply(*args)
        return func(*args, **(kwargs or {}))
