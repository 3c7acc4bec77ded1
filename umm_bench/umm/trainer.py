"""Training of the TIUE: min || eps - eps_theta(z_t, t, h_u) ||^2 over the MLP alone.

Shapes: N rows of a step, B rows of one forward pass, C/H/W latent, L tokens, D text width, E image embedding,
V augmented views, K pseudo words.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.grad import conv2d_input
from torch.overrides import TorchFunctionMode

from umm_bench.errors import UserError
from umm_bench.umm.encoded import Batch, EncodedPairs
from umm_bench.umm.pipeline import UMMPipeline
from umm_bench.umm.settings import TrainConfig
from umm_bench.umm.tiue import TIUE, subject_hidden_states

if TYPE_CHECKING:
    from accelerate import Accelerator

PRECISIONS = {"no": None, "bf16": torch.bfloat16}


@dataclass
class TrainState:
    """What a run consists of after `step` steps; `loss` and `grad_norm` (before clipping) are the last one's."""

    step: int
    tiue: TIUE
    ema: TIUE
    optimizer: torch.optim.AdamW
    loss: float = math.nan
    grad_norm: float = math.nan


@dataclass(frozen=True)
class Draws:
    """All that is random in a step, on the CPU: the same on any device and however the rows are split.

    `drop_N` is uniform in [0, 1): a row whose draw is below the rate loses its image.
    """

    view_N: Tensor
    drop_N: Tensor
    posterior_NCHW: Tensor
    eps_NCHW: Tensor
    t_N: Tensor

    def rows(self, part: slice) -> "Draws":
        return Draws(*(tensor[part] for tensor in vars(self).values()))


def initial_state(pipe: UMMPipeline, config: TrainConfig, start: TIUE | None = None) -> TrainState:
    """A TIUE that fits the encoders of `pipe`, on the UNet's device, in float32: untrained, or with `start`'s weights.

    UserError where those are of other sizes, or do otherwise to the subject's words than `config` says.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        tiue = TIUE(
            image_dim=pipe.image_encoder.config.projection_dim,
            text_dim=pipe.text_encoder.config.hidden_size,
            num_pseudo_words=config.num_pseudo_words,
            hidden_dim=config.hidden_dim,
            depth=config.depth,
            word_std=float(pipe.text_encoder.get_input_embeddings().weight.detach().float().std()),
            placement=config.placement,
        )
    if start is not None:
        for name in ("image_dim", "text_dim", "num_pseudo_words", "hidden_dim", "depth", "placement"):
            if start.config[name] != tiue.config[name]:
                raise UserError(f"the TIUE to begin with has {name}={start.config[name]}, this one {tiue.config[name]}")
        tiue.load_state_dict(start.state_dict())
        tiue.word_std = start.config.word_std
        tiue.register_to_config(word_std=tiue.word_std)
    tiue.to(pipe.unet.device)
    optimizer = torch.optim.AdamW(
        tiue.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    return TrainState(0, tiue, deepcopy(tiue).requires_grad_(False), optimizer)


def release_encoders(pipe: UMMPipeline, for_good: bool) -> None:
    """Training reads the cache: the VAE and the image encoder leave the device, `for_good` also their weights."""
    pipe.vae.to("meta" if for_good else "cpu")
    pipe.image_encoder.to("meta" if for_good else "cpu")


def train(
    pipe: UMMPipeline,
    pairs: EncodedPairs,
    config: TrainConfig,
    state: TrainState,
    accelerator: "Accelerator | None" = None,
) -> Iterator[TrainState]:
    """Advances `state` to `config.steps` and yields it after each step; stop or save between steps as you
    like. With an `accelerator` of several processes each takes its share of a step's rows, and all of them
    hold the same state.

    The randomness of a step depends on `config.seed`, the step and the number of its rows alone. So a run
    that goes on from a saved state is bitwise the run that was never stopped, and the same rows split into
    other passes or processes give the same step up to rounding.

    The frozen models of `pipe` are set to evaluation, and to bfloat16 where `config` says so. Raises
    UserError for a prediction type other than epsilon and v_prediction, for `summary_steps` with a UNet that reads no
    summary, and at the first loss or gradient that is not finite, before it reaches the weights.
    """
    schedule = noise_schedule(pipe)
    if config.summary_steps and pipe.unet.config.addition_embed_type != "text":
        raise UserError("this base's UNet adds no summary of the text to its time embedding: --summary-steps must be 0")
    dtype = PRECISIONS[config.mixed_precision]
    for frozen in (pipe.vae, pipe.unet, pipe.text_encoder, pipe.image_encoder):
        frozen.requires_grad_(False).eval()
        if dtype is not None:
            frozen.to(dtype=dtype)
    processes, process = (accelerator.num_processes, accelerator.process_index) if accelerator else (1, 0)
    rows = config.rows_per_step(processes)
    passes = [
        slice(first, first + config.batch_size)
        for first in range(process * rows // processes, (process + 1) * rows // processes, config.batch_size)
    ]
    positions = math.prod(pairs.shapes["mean"][1:])
    while state.step < config.steps:
        indices = _indices(len(pairs), rows, config.seed, state.step)
        draws = draw(pairs.shapes, rows, config.seed, state.step, schedule.config.num_train_timesteps)
        state.optimizer.zero_grad(set_to_none=True)
        losses = []
        for part in passes:
            batch, drawn = pairs.batch(indices[part]), draws.rows(part)
            with _lean_forward(pipe, positions):
                if state.step < config.summary_steps:
                    loss = summary_loss(pipe, state.tiue, batch, drawn, config)
                else:
                    loss = umm_loss(pipe, state.tiue, schedule, batch, drawn, config)
            (loss / len(passes)).backward()
            losses.append(loss.detach())
        _step(state, config, torch.stack(losses).mean(), accelerator)
        yield state


def _step(state: TrainState, config: TrainConfig, loss: Tensor, accelerator: "Accelerator | None") -> None:
    """The optimizer's step from the gradients of all processes, and the average's."""
    parameters = list(state.tiue.parameters())
    if accelerator is not None and accelerator.num_processes > 1:
        # One message. DistributedDataParallel would gain nothing: the MLP's gradients come last in the backward pass.
        mean = accelerator.reduce(torch.cat([loss.reshape(1), *(p.grad.reshape(-1) for p in parameters)]), "mean")
        loss, *gradients = mean.split([1, *(p.numel() for p in parameters)])
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.view_as(parameter)
    norm = torch.nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
    state.loss, state.grad_norm = loss.item(), norm.item()
    for name, value in (("loss", state.loss), ("gradient", state.grad_norm)):
        if not math.isfinite(value):
            raise UserError(
                f"the {name} became {value} at step {state.step + 1}; the last checkpoint is intact, "
                "go on from it with --resume and a lower --lr"
            )
    for group in state.optimizer.param_groups:
        group["lr"] = config.learning_rate_at(state.step)
    state.optimizer.step()
    state.step += 1
    # a young average would otherwise be mostly the random start
    decay = min(config.ema_decay, state.step / (state.step + 10))
    with torch.no_grad():
        torch._foreach_lerp_(list(state.ema.parameters()), parameters, 1 - decay)


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
    """Within it, 2-D convolutions with frozen parameters keep their input's shape alone for the backward pass.

    They save their input for the weight's gradient, also where none is asked: about a quarter of the activations that a
    UNet step keeps (2404.12406 describes the effect).
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.conv2d and not kwargs and args[0].requires_grad:
            frozen = not any(isinstance(part, Tensor) and part.requires_grad for part in args[1:3])
            if frozen and not isinstance(args[4] if len(args) > 4 else 0, str):
                return _FrozenConv2d.apply(*args)
        return func(*args, **(kwargs or {}))


@contextmanager
def _lean_forward(pipe: UMMPipeline, positions: int) -> Iterator[None]:
    """A forward pass that keeps less and whose backward pass is faster; `positions` are those of a latent."""
    if pipe.unet.is_gradient_checkpointing:
        yield  # the second forward pass happens within the backward pass, out of here, and must be as the first
        return
    # In bfloat16 on a CPU the backward pass of fused attention is slow: a step of the mini base takes 0.83 of its time
    # with plain products (AMX, torch 2.13). Those keep every attention weight, too many of a large latent.
    plain = pipe.unet.device.type == "cpu" and pipe.unet.dtype == torch.bfloat16 and positions <= 1024
    with FrozenConvolutions(), sdpa_kernel(SDPBackend.MATH) if plain else nullcontext():
        yield


def noise_schedule(pipe: UMMPipeline) -> DDPMScheduler:
    """The base's own schedule. Raises UserError for a prediction type that the loss has no target for."""
    schedule = DDPMScheduler.from_config(pipe.scheduler.config)
    if schedule.config.prediction_type not in ("epsilon", "v_prediction"):
        raise UserError(
            f"cannot train for prediction_type {schedule.config.prediction_type}; use epsilon or v_prediction"
        )
    return schedule


def umm_loss(
    pipe: UMMPipeline, tiue: TIUE, schedule: DDPMScheduler, batch: Batch, draws: Draws, config: TrainConfig
) -> Tensor:
    """The mean loss of B cached rows."""
    device = pipe.unet.device
    h_u_BLD = _hidden_states(pipe, tiue, batch, draws, config)
    z_0_BCHW = batch.mean_BCHW + batch.std_BCHW * draws.posterior_NCHW
    z_0_BCHW = (z_0_BCHW * pipe.vae.config.scaling_factor).to(device)

    taught = None
    if config.distill:
        h_whole_BLD, told_B = _whole_captions(batch, draws, config)
        taught = h_whole_BLD.to(device), config.distill * told_B.to(device)
    return denoising_loss(pipe, schedule, z_0_BCHW, h_u_BLD, draws, config.min_snr_gamma, taught)


def summary_loss(pipe: UMMPipeline, tiue: TIUE, batch: Batch, draws: Draws, config: TrainConfig) -> Tensor:
    """How far the UNet's summary of h_u is from that of the whole caption, the mean over the rows that were cut."""
    h_whole_BLD, told_B = _whole_captions(batch, draws, config)
    h_u_BLD = _hidden_states(pipe, tiue, batch, draws, config)
    device, dtype = pipe.unet.device, pipe.unet.dtype
    summary, told_B = pipe.unet.add_embedding, told_B.to(device)
    with torch.no_grad():
        target_BD = summary(h_whole_BLD.to(device, dtype)).float()
    error_B = (summary(h_u_BLD.to(dtype)).float() - target_BD).square().mean(dim=1)
    return (error_B * told_B).sum() / told_B.sum().clamp(min=1)


def _hidden_states(pipe: UMMPipeline, tiue: TIUE, batch: Batch, draws: Draws, config: TrainConfig) -> Tensor:
    """h_u [B, L, D] of cached rows, with the views that were drawn."""
    device = pipe.unet.device
    keep_B = draws.drop_N >= config.drop_rate
    image_embeds_BE = batch.image_embeds_BVE[torch.arange(len(keep_B)), draws.view_N] * keep_B[:, None]
    words_BKD = tiue(image_embeds_BE.to(device))
    ids_BL, h_y_BLD, mask_BL = (x.to(device) for x in (batch.input_ids_BL, batch.h_y_BLD, batch.mask_BL))
    return subject_hidden_states(pipe, ids_BL, h_y_BLD, mask_BL[None], [words_BKD], [tiue.config.placement])


def _whole_captions(batch: Batch, draws: Draws, config: TrainConfig) -> tuple[Tensor, Tensor]:
    """Hidden states of the uncut captions, and 1.0 for each that an image tells: not where it is dropped, or says no
    more than the cut one.
    """
    if batch.h_whole_BLD is None or batch.cut_B is None:
        raise UserError("distill and summary_steps need pairs that were encoded with whole_captions")
    return batch.h_whole_BLD, (batch.cut_B & (draws.drop_N >= config.drop_rate)).float()


def denoising_loss(
    pipe: UMMPipeline,
    schedule: DDPMScheduler,
    z_0_BCHW: Tensor,
    h_BLD: Tensor,
    draws: Draws,
    min_snr_gamma: float,
    taught: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """The mean over B of || eps - eps_theta(z_t, t, h) ||^2, or of v, weighted by min-SNR.

    `taught` are other hidden states [B, L, D] and a share [B]: so much of the target is the prediction given those.
    """
    dtype, device = pipe.unet.dtype, pipe.unet.device
    eps_BCHW, t_B = draws.eps_NCHW.to(device), draws.t_N.to(device)
    z_t_BCHW = schedule.add_noise(z_0_BCHW, eps_BCHW, t_B)

    def predicted(states_BLD: Tensor) -> Tensor:
        return pipe.unet(z_t_BCHW.to(dtype), t_B, encoder_hidden_states=states_BLD.to(dtype), return_dict=False)[0]

    prediction_BCHW = predicted(h_BLD)
    is_v = schedule.config.prediction_type == "v_prediction"
    target_BCHW = schedule.get_velocity(z_0_BCHW, eps_BCHW, t_B) if is_v else eps_BCHW
    if taught is not None:
        h_taught_BLD, share_B = taught
        with torch.no_grad():
            told_BCHW = predicted(h_taught_BLD).float()
        target_BCHW = torch.lerp(target_BCHW, told_BCHW, share_B[:, None, None, None])
    error_B = F.mse_loss(prediction_BCHW.float(), target_BCHW, reduction="none").flatten(1).mean(dim=1)
    return (min_snr_weight(schedule.alphas_cumprod.to(device)[t_B], min_snr_gamma, is_v) * error_B).mean()


def min_snr_weight(alphas_cumprod_B: Tensor, gamma: float, is_v: bool) -> Tensor:
    """min(SNR, gamma) / SNR for epsilon, / (SNR + 1) for v (2303.09556, section 3.4); ones for gamma 0."""
    if not gamma:
        return torch.ones_like(alphas_cumprod_B)
    snr_B = alphas_cumprod_B / (1 - alphas_cumprod_B)
    return snr_B.clamp(max=gamma) / (snr_B + 1) if is_v else (gamma / snr_B).clamp(max=1)


def draw(shapes: Mapping[str, Sequence[int]], rows: int, seed: int, step: int, num_train_timesteps: int) -> Draws:
    """The draws of a step for all its rows; `shapes` are those of one cached pair (`EncodedPairs.shapes`)."""
    random: dict[str, Any] = {"generator": _generator(seed, "step", step)}
    latent = (rows, *shapes["mean"])
    return Draws(
        view_N=torch.randint(shapes["image_embeds"][0], (rows,), **random),
        drop_N=torch.rand(rows, **random),
        posterior_NCHW=torch.randn(latent, **random),
        eps_NCHW=torch.randn(latent, **random),
        t_N=torch.randint(num_train_timesteps, (rows,), **random),
    )


def _generator(*parts: int | str) -> torch.Generator:
    # always on the CPU: the same step is the same on any device
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@lru_cache(maxsize=4)
def _order(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=_generator(seed, "epoch", epoch))


def _indices(count: int, rows: int, seed: int, step: int) -> list[int]:
    """Pairs of this step: each epoch is its own seeded permutation, and a step may reach into the next."""
    places = range(step * rows, (step + 1) * rows)
    return [int(_order(count, seed, place // count)[place % count]) for place in places]
