"""What Textual Inversion and DreamBooth share: the loss, what it is computed from, and what ends it."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from umm_bench.base import Base, choose_precision
from umm_bench.errors import UserError
from umm_bench.images import open_image
from umm_bench.methods import Case, Subject
from umm_bench.weights import LOAD_ERRORS, first_line

Scale = Literal["mini", "sd"]
Precision = Literal["no", "bf16"]

_SD_WIDTH = 768  # of the text that Stable Diffusion 1.x reads; 2.x reads 1024


class Diverged(UserError):
    """A loss or a gradient is no number; the weights are still those of the step before."""


def scale_of(base: Base) -> Scale:
    """By the width of the text that the UNet reads; loads its configuration alone. UserError where there is none."""
    try:
        width = UNet2DConditionModel.load_config(base.location, subfolder="unet")["cross_attention_dim"]
    except LOAD_ERRORS as error:
        raise UserError(f"cannot load the UNet of base '{base.name}': {first_line(error)}") from error
    return "sd" if max(width if isinstance(width, (list, tuple)) else [width]) >= _SD_WIDTH else "mini"


def require_curve(steps: int, curve: Sequence[int]) -> None:
    """ValueError where a fine-tune is none of the points of its curve."""
    if curve and steps not in curve:
        raise ValueError(f"steps {steps} is no point of the curve {', '.join(map(str, curve))}")


def require_positive(config: object, *names: str) -> None:
    """ValueError naming the first of a config's fields that is not above zero."""
    for name in names:
        if getattr(config, name) <= 0:
            raise ValueError(f"{name} must be above 0, got {getattr(config, name)}")


def require_finite(method: str, target: Subject | Case, step: int, loss: Tensor, gradient_norm: Tensor) -> None:
    """Diverged where it has; called before the optimizer's step number `step`, from 0."""
    for name, value in (("loss", loss.item()), ("gradient", gradient_norm.item())):
        if not math.isfinite(value):
            raise Diverged(
                f"{method} of {target.id}: the {name} became {value} at step {step + 1}; "
                f"lower the rate with --set {method}.learning_rate=RATE"
            )


def read_references(paths: Sequence[Path]) -> list[Image.Image]:
    """The references as `open_image` gives them. UserError where there are none or a file cannot be read."""
    if not paths:
        raise UserError("a subject without reference images cannot be learnt")
    return [open_image(path) for path in paths]


def image_size(pipe: StableDiffusionPipeline) -> int:
    """The side in pixels that the pipeline generates by default, which is also the side it is trained at."""
    return int(pipe.unet.config.sample_size * pipe.vae_scale_factor)


def denoising_errors(
    unet: UNet2DConditionModel,
    schedule: DDPMScheduler,
    latents_BCHW: Tensor,
    h_BLD: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Mean squared error of each member [B], at timesteps and noise drawn from the CPU `generator`."""
    noise_BCHW = torch.randn(latents_BCHW.shape, generator=generator).to(latents_BCHW)
    t_B = torch.randint(schedule.config.num_train_timesteps, (len(latents_BCHW),), generator=generator)
    t_B = t_B.to(latents_BCHW.device)
    z_BCHW = schedule.add_noise(latents_BCHW, noise_BCHW, t_B)
    if schedule.config.prediction_type == "epsilon":
        target_BCHW = noise_BCHW
    elif schedule.config.prediction_type == "v_prediction":
        target_BCHW = schedule.get_velocity(latents_BCHW, noise_BCHW, t_B)
    else:
        raise UserError(f"prediction type {schedule.config.prediction_type!r}: only epsilon and v_prediction train")
    prediction_BCHW = unet(z_BCHW, t_B, encoder_hidden_states=h_BLD).sample
    return F.mse_loss(prediction_BCHW.float(), target_BCHW.float(), reduction="none").mean(dim=(1, 2, 3))


def training_schedule(pipe: StableDiffusionPipeline) -> DDPMScheduler:
    """The noise schedule that the base was trained with, whichever sampler its pipeline carries."""
    return DDPMScheduler.from_config(pipe.scheduler.config)


def with_components(pipe: StableDiffusionPipeline, **replaced: Any) -> StableDiffusionPipeline:
    """A pipeline on the same components but for those `replaced`; `from_pipe` could cast the shared ones."""
    components = {**pipe.components, **replaced}
    other = StableDiffusionPipeline(**components, requires_safety_checker=pipe.config.requires_safety_checker)
    other.set_progress_bar_config(disable=True)
    return other


def precision_of(base: Base) -> Precision:
    """What forward passes are fast in on the base's device; weights and losses stay float32."""
    return "bf16" if choose_precision("auto", base.device) == "bf16" else "no"


def of_device(base: Base) -> dict[str, Any]:
    """The settings of a fine-tune that go by what is there: a precision, and an optimizer of less memory."""
    small = (
        torch.device(base.device).type == "cuda" and scale_of(base) == "sd" and find_spec("bitsandbytes") is not None
    )
    return {"mixed_precision": precision_of(base), "use_8bit_adam": small}


def adamw(parameters: Sequence[Tensor], rate: float, decay: float, in_8_bits: bool) -> torch.optim.Optimizer:
    """AdamW; its memory in 8 bits by bitsandbytes, as diffusers' scripts can. UserError where that is not installed."""
    if not in_8_bits:
        # Fused: the same update in a quarter of the time, which is an eighth of a step on a CPU.
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, fused=True)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise UserError("use_8bit_adam needs bitsandbytes: pip install bitsandbytes, or set it to false") from error
    return AdamW8bit(parameters, lr=rate, weight_decay=decay)


def mixed(device: torch.device, precision: Precision) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Lets gradients pass through shared modules without collecting any in them; their flags are put back."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    flags = [parameter.requires_grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, flag in zip(parameters, flags, strict=True):
            parameter.requires_grad_(flag)


def of_training(config: Any) -> tuple[int, ...]:
    """What a training's seeds are made from beside the rest; nothing for 0, as before there were more."""
    return (config.training_seed,) if config.training_seed else ()
