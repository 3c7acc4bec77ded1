"""What Textual Inversion and DreamBooth share: cached latents, the loss, state that is whole or absent."""

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image, ImageOps
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from umm_bench.errors import UserError
from umm_bench.images import open_image
from umm_bench.methods import Case, Subject

Augment = Literal["none", "flip"]
STATE_FILE = "state.json"


@dataclass(frozen=True)
class LatentCache:
    """The VAE posteriors of a set of images: of encoding at every step, only the noise would change.

    `mean_NCHW` and `std_NCHW` are in the VAE's own scale; `sample` returns latents in the UNet's scale.
    """

    mean_NCHW: Tensor
    std_NCHW: Tensor
    scaling_factor: float
    shift_factor: float

    def sample(self, indices_B: Tensor, generator: torch.Generator) -> Tensor:
        mean_BCHW, std_BCHW = self.mean_NCHW[indices_B], self.std_NCHW[indices_B]
        noise_BCHW = torch.randn(mean_BCHW.shape, generator=generator).to(mean_BCHW)
        return (mean_BCHW + std_BCHW * noise_BCHW - self.shift_factor) * self.scaling_factor

    def __len__(self) -> int:
        return len(self.mean_NCHW)


@torch.no_grad()
def cache_latents(vae: AutoencoderKL, images: Sequence[Image.Image], size: int, augment: Augment) -> LatentCache:
    """Encodes `images`, cropped to `size` pixels square; `augment="flip"` adds each one's mirror image."""
    squares = [ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BICUBIC) for image in images]
    if augment == "flip":
        squares += [ImageOps.mirror(square) for square in squares]
    pixels_NHWC = np.stack([np.asarray(square, dtype=np.float32) for square in squares]) / 127.5 - 1
    pixels_NCHW = torch.from_numpy(pixels_NHWC).permute(0, 3, 1, 2).to(vae.device, vae.dtype)
    posteriors = [vae.encode(pixels_CHW[None]).latent_dist for pixels_CHW in pixels_NCHW]
    return LatentCache(
        torch.cat([posterior.mean for posterior in posteriors]),
        torch.cat([posterior.std for posterior in posteriors]),
        vae.config.scaling_factor,
        vae.config.shift_factor or 0.0,
    )


def require_positive(config: object, *names: str) -> None:
    """ValueError naming the first of a config's fields that is not above zero."""
    for name in names:
        if getattr(config, name) <= 0:
            raise ValueError(f"{name} must be above 0, got {getattr(config, name)}")


def require_finite(method: str, target: Subject | Case, step: int, loss: Tensor, gradient_norm: Tensor) -> None:
    """UserError where a fine-tune diverges; called before the optimizer's step number `step`, from 0."""
    for name, value in (("loss", loss.item()), ("gradient", gradient_norm.item())):
        if not math.isfinite(value):
            raise UserError(
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


def is_complete(directory: Path, record: dict[str, Any]) -> bool:
    """Whether `directory` holds the finished state of exactly this `record` (JSON values only)."""
    try:
        return json.loads((directory / STATE_FILE).read_text())["record"] == json.loads(json.dumps(record))
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        return False


class Progress:
    """How far a fine-tune has come, kept beside `directory`, so that a kill costs at most the time since the last save.

    Saving takes a twentieth of the time at most: what is small is saved every few seconds, a whole UNet less often,
    and never where the disk would be left with less room than it takes.
    `folder` may hold more that a fine-tune would not make twice.
    """

    def __init__(self, directory: Path, record: dict[str, Any]) -> None:
        self.folder = directory.with_name(f"{directory.name}.unfinished")
        self.losses: list[float] = []
        self.seconds_before = 0.0
        self._record = json.loads(json.dumps(record))
        self._began = self._saved = time.monotonic()
        self._pause = 5.0
        if is_complete(self.folder, record):
            self.seconds_before = json.loads((self.folder / STATE_FILE).read_text())["seconds"]
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            self._note()

    def begin(self, parameters: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer) -> int:
        """Put back what was saved of the parameters and of their optimizer; the step to go on with, from 0."""
        self._parameters, self._optimizer = parameters, optimizer
        state = json.loads((self.folder / STATE_FILE).read_text())
        if not state["losses"]:
            return 0
        try:
            tensors = load_file(self.folder / f"{len(state['losses'])}.safetensors")
        except (OSError, SafetensorError):  # a disk that lost it: from the start, then
            return 0
        self.losses = state["losses"]
        memory: dict[int, dict[str, Tensor]] = {}
        with torch.no_grad():
            for i, parameter in enumerate(parameters):
                parameter.copy_(tensors.pop(str(i)))
        for name, tensor in tensors.items():
            i_text, key = name.split(".", 1)
            memory.setdefault(int(i_text), {})[key] = tensor
        optimizer.load_state_dict({"state": memory, "param_groups": optimizer.state_dict()["param_groups"]})
        return len(self.losses)

    def step(self, loss: float) -> None:
        """Note a step that is done, and save where that is due."""
        self.losses.append(loss)
        if time.monotonic() - self._saved < self._pause:
            return
        start = time.monotonic()
        tensors = {str(i): p.detach() for i, p in enumerate(self._parameters)}
        for i, entry in self._optimizer.state_dict()["state"].items():
            tensors |= {f"{i}.{key}": torch.as_tensor(value) for key, value in entry.items()}
        if shutil.disk_usage(self.folder).free < 2 * sum(tensor.nbytes for tensor in tensors.values()):
            self._pause = math.inf
            return
        path = self.folder / f"{len(self.losses)}.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
        self._note()  # from here on it is this one
        for other in self.folder.glob("*.safetensors"):
            if other != path:
                other.unlink()
        self._saved = time.monotonic()
        self._pause = max(5.0, 20 * (self._saved - start))

    def _note(self) -> None:
        seconds = self.seconds_before + time.monotonic() - self._began
        state = {"record": self._record, "losses": self.losses, "seconds": seconds}
        partial = self.folder / f"{STATE_FILE}.part"
        partial.write_text(json.dumps(state))
        partial.replace(self.folder / STATE_FILE)

    def finish(self, directory: Path, write: Callable[[Path], None]) -> None:
        """`save_state`, after which nothing is unfinished."""
        trained = sum(parameter.numel() for parameter in self._parameters)
        save_state(directory, self._record, self.losses, write, self.seconds_before, trained)
        shutil.rmtree(self.folder)


def save_state(
    directory: Path,
    record: dict[str, Any],
    losses: list[float],
    write: Callable[[Path], None],
    seconds_before: float = 0.0,
    trained_parameters: int = 0,
) -> None:
    """Lets `write` fill a folder beside `directory`, then moves it in place: no half state is ever found.

    `seconds_before` is what was spent in calls that were cut off, which the bench counts too, as it notes the steps
    and the number of trained parameters.
    """
    partial = directory.with_name(f"{directory.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write(partial)
    state = {"record": record, "losses": losses, "seconds_before": seconds_before}
    state |= {"steps": len(losses), "trained_parameters": trained_parameters}
    (partial / STATE_FILE).write_text(json.dumps(state, indent=1))
    if directory.exists():
        shutil.rmtree(directory)
    partial.replace(directory)
