"""What the branches of one step have in common is computed once.

All branches denoise the same latents, and differ from where the UNet first reads the text. In Stable Diffusion that is
its first cross-attention: before it lie the time embedding, the first convolution, the first residual blocks and, in
1.x, the dearest self-attention. A UNet that adds the text to the time embedding shares little. The modules are
untouched: hooks give them one row an image and repeat what comes out.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn


def text_free_modules(unet: UNet2DConditionModel) -> Iterator[nn.Module]:
    """The modules that no text reaches, because they come before the first that reads it."""
    yield from (unet.time_embedding, unet.conv_in)
    if unet.config.addition_embed_type:  # it is added to the time embedding, which all residual blocks read
        return
    for block in unet.down_blocks:
        if not getattr(block, "has_cross_attention", False):
            yield block
            continue
        yield block.resnets[0]
        first = block.attentions[0]
        if isinstance(first, Transformer2DModel) and first.is_input_continuous:
            yield from (first.norm, first.proj_in)
            inner = first.transformer_blocks[0]
            if isinstance(inner, BasicTransformerBlock) and not inner.only_cross_attention:
                yield inner.attn1
        return


@contextmanager
def shared_prefix(unet: UNet2DConditionModel, num_images: int) -> Iterator[None]:
    """Inside, `unet` computes its text-free part once for rows that are `num_images` latents repeated.

    Row r of the input must hold the latents of image r % num_images. A compiled UNet is left alone: hooks would
    make it compile again.
    """
    if any(hasattr(m, "_orig_mod") or m._compiled_call_impl for m in unet.modules()):
        yield
        return
    rows = num_images

    def count_rows(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal rows
        rows = len(kwargs["sample"] if "sample" in kwargs else args[0])

    def narrow(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if rows == num_images:
            return None
        return _each_tensor((args, kwargs), lambda x: x[:num_images] if len(x) == rows else x)

    def widen(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if rows == num_images:
            return None
        return _each_tensor(output, lambda x: x.expand(rows // num_images, *x.shape).flatten(0, 1))

    with ExitStack() as hooks:
        hooks.callback(unet.register_forward_pre_hook(count_rows, with_kwargs=True).remove)
        for module in text_free_modules(unet):
            hooks.callback(module.register_forward_pre_hook(narrow, with_kwargs=True).remove)
            hooks.callback(module.register_forward_hook(widen).remove)
        yield


def _each_tensor(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value) if value.ndim else value
    if isinstance(value, (tuple, list)):
        return type(value)(_each_tensor(item, change) for item in value)
    if isinstance(value, dict):
        return {name: _each_tensor(item, change) for name, item in value.items()}
    return value
