"""What the branches of one step, and the steps of one run, have in common is computed once.

All branches denoise the same latents, and differ from where the UNet first reads the text. In Stable Diffusion that is
its first cross-attention: before it lie the time embedding, the first convolution, the first residual blocks and, in
1.x, the dearest self-attention. A UNet that adds the text to the time embedding shares less: its first residual block
up to the first convolution. Hooks give these modules one row an image and repeat what comes out.

From one step to the next the text stays. What reads nothing else, the keys and values of cross-attention and the text's
part of the time embedding, is remembered. Both leave the modules as they were.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

TEXTS = 4
"""Batches of hidden states that are remembered: the fast mode takes turns between three."""


def text_free_modules(unet: UNet2DConditionModel) -> Iterator[nn.Module]:
    """The modules that no text reaches, because they come before the first that reads it."""
    yield from (unet.time_embedding, unet.conv_in)
    if unet.config.addition_embed_type:  # it is added to the time embedding, which all residual blocks read
        first = unet.down_blocks[0].resnets[0] if getattr(unet.down_blocks[0], "resnets", None) else None
        if isinstance(first, ResnetBlock2D):
            yield from (first.norm1, first.conv1)
            if first.conv_shortcut is not None:
                yield first.conv_shortcut
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
def shared_work(unet: UNet2DConditionModel, num_images: int) -> Iterator[None]:
    """`shared_prefix` and `remembered_text`."""
    with shared_prefix(unet, num_images), remembered_text(unet):
        yield


@contextmanager
def shared_prefix(unet: UNet2DConditionModel, num_images: int) -> Iterator[None]:
    """Inside, `unet` computes its text-free part once for rows that are `num_images` latents repeated.

    Row r of the input must hold the latents of image r % num_images. A compiled UNet is left alone: hooks would
    make it compile again.
    """
    if _is_compiled(unet):
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


def text_only_modules(unet: UNet2DConditionModel) -> Iterator[nn.Module]:
    """The modules that read the text and nothing else."""
    if unet.config.addition_embed_type == "text":
        yield unet.add_embedding
    for block in unet.modules():
        if isinstance(block, BasicTransformerBlock) and isinstance(block.attn2, Attention):
            yield from (block.attn2.to_k, block.attn2.to_v)


@contextmanager
def remembered_text(unet: UNet2DConditionModel) -> Iterator[None]:
    """Inside, what `unet` makes of the same tensor of hidden states, unchanged, is made once.

    Of the latest `TEXTS` tensors; another tensor of the same values is another text. Without gradients only, and a
    compiled UNet is left alone.
    """
    if _is_compiled(unet) or torch.is_grad_enabled():
        yield
        return
    made: dict[tuple[int, int], tuple[Tensor, dict[nn.Module, Tensor]]] = {}
    texts: list[tuple[int, int]] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        text = kwargs["encoder_hidden_states"] if "encoder_hidden_states" in kwargs else args[2]
        key = _state(text)
        if key not in made:
            made[key] = text, {}  # holds it, so that no other takes its id
            texts.append(key)
            if len(texts) > TEXTS:
                made.pop(texts.pop(0))

    def remembering(module: nn.Module, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def read(text: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            known = made.get(_state(text))
            if known is None or args or kwargs:
                return forward(text, *args, **kwargs)
            if module not in known[1]:
                known[1][module] = forward(text)
            return known[1][module]

        return read

    with ExitStack() as undo:
        undo.callback(unet.register_forward_pre_hook(note, with_kwargs=True).remove)
        for module in text_only_modules(unet):
            undo.callback(_put_back, module, vars(module).get("forward"))
            module.forward = remembering(module, module.forward)  # type: ignore[method-assign]
        yield


def _state(text: Tensor) -> tuple[int, int]:
    """Another where `text` was changed in place; tensors of inference mode do not count their changes."""
    return id(text), 0 if text.is_inference() else text._version


def _put_back(module: nn.Module, forward: Callable[..., Tensor] | None) -> None:
    del module.forward
    if forward is not None:  # accelerate's offloading, for one, puts its own there
        module.forward = forward  # type: ignore[method-assign]


def _is_compiled(unet: nn.Module) -> bool:
    return any(hasattr(module, "_orig_mod") or module._compiled_call_impl for module in unet.modules())


def _each_tensor(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value) if value.ndim else value
    if isinstance(value, (tuple, list)):
        return type(value)(_each_tensor(item, change) for item in value)
    if isinstance(value, dict):
        return {name: _each_tensor(item, change) for name, item in value.items()}
    return value
