"""Training of the TIUE: min || eps - eps_theta(z_t, t, h_u) ||^2 over the MLP alone.

Shapes: B batch, C/H/W latent, L tokens, D text width, E image embedding, K pseudo words.
"""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DDPMScheduler
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from umm_bench.errors import UserError
from umm_bench.umm.encoded import EncodedPairs
from umm_bench.umm.pipeline import UMMPipeline
from umm_bench.umm.tiue import TIUE, fuse_hidden_states, place_words, rearranged_hidden_states

STATE_FILE = "training_state.safetensors"


@dataclass(frozen=True)
class TrainConfig:
    """One training run. `min_snr_gamma` 0 weighs all timesteps alike (2303.09556); `drop_rate` is the part of
    the rows whose image embedding is zeroed, which teaches the word for "no image". The UNet is frozen, so
    dropping the text as well would train nothing.
    """

    steps: int = 2000
    batch_size: int = 16
    learning_rate: float = 3e-4
    weight_decay: float = 1e-2
    warmup_steps: int = 100
    gradient_clip: float = 1.0
    min_snr_gamma: float = 5.0
    drop_rate: float = 0.05
    ema_decay: float = 0.999
    seed: int = 0
    num_pseudo_words: int = 1
    hidden_dim: int = 1024
    depth: int = 2


@dataclass
class TrainState:
    """What a run consists of after `step` steps; `loss` is that of the last one."""

    step: int
    tiue: TIUE
    ema: TIUE
    optimizer: torch.optim.AdamW
    loss: float = math.nan


def initial_state(pipe: UMMPipeline, config: TrainConfig) -> TrainState:
    """An untrained TIUE that fits the encoders of `pipe`, on its device, in float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        tiue = TIUE(
            image_dim=pipe.image_encoder.config.projection_dim,
            text_dim=pipe.text_encoder.config.hidden_size,
            num_pseudo_words=config.num_pseudo_words,
            hidden_dim=config.hidden_dim,
            depth=config.depth,
            word_std=float(pipe.text_encoder.get_input_embeddings().weight.detach().float().std()),
        )
    tiue.to(pipe.device)
    optimizer = torch.optim.AdamW(tiue.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    return TrainState(0, tiue, deepcopy(tiue).requires_grad_(False), optimizer)


def train(pipe: UMMPipeline, pairs: EncodedPairs, config: TrainConfig, state: TrainState) -> Iterator[TrainState]:
    """Advances `state` to `config.steps` and yields it after each step; stop or save between steps as you
    like.

    The randomness of a step depends on `config.seed` and the step alone, so a run that goes on from a saved
    state is bitwise the run that was never stopped. Raises UserError for a prediction type other than epsilon
    and v_prediction, and at the first loss that is not a finite number.
    """
    schedule = DDPMScheduler.from_config(pipe.scheduler.config)
    if schedule.config.prediction_type not in ("epsilon", "v_prediction"):
        raise UserError(
            f"cannot train for prediction_type {schedule.config.prediction_type}; use epsilon or v_prediction"
        )
    for frozen in (pipe.vae, pipe.unet, pipe.text_encoder, pipe.image_encoder):
        frozen.requires_grad_(False).eval()
    while state.step < config.steps:
        loss = _loss(pipe, pairs, schedule, config, state)
        state.loss = loss.item()
        if not math.isfinite(state.loss):
            raise UserError(
                f"the loss became {state.loss} at step {state.step + 1}; the last checkpoint is intact, "
                "go on from it with a lower --lr"
            )
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(state.tiue.parameters(), config.gradient_clip, error_if_nonfinite=True)
        warmup = min(1.0, (state.step + 1) / max(1, config.warmup_steps))
        for group in state.optimizer.param_groups:
            group["lr"] = config.learning_rate * warmup
        state.optimizer.step()
        state.step += 1
        # a young average would otherwise be mostly the random start
        decay = min(config.ema_decay, state.step / (state.step + 10))
        with torch.no_grad():
            for average, current in zip(state.ema.parameters(), state.tiue.parameters(), strict=True):
                average.lerp_(current, 1 - decay)
        yield state


def _loss(
    pipe: UMMPipeline, pairs: EncodedPairs, schedule: DDPMScheduler, config: TrainConfig, state: TrainState
) -> Tensor:
    device, dtype = pipe.device, pipe.unet.dtype
    random = _generator(config.seed, "step", state.step)
    batch = pairs.batch(_indices(len(pairs), config, state.step))
    size = len(batch.mask_BL)

    view_B = torch.randint(batch.image_embeds_BVE.shape[1], (size,), generator=random)
    keep_B = torch.rand(size, generator=random) >= config.drop_rate
    image_embeds_BE = batch.image_embeds_BVE[torch.arange(size), view_B] * keep_B[:, None]
    z_0_BCHW = batch.mean_BCHW + batch.std_BCHW * torch.randn(batch.mean_BCHW.shape, generator=random)
    z_0_BCHW = (z_0_BCHW * pipe.vae.config.scaling_factor).to(device)
    eps_BCHW = torch.randn(z_0_BCHW.shape, generator=random).to(device)
    t_B = torch.randint(schedule.config.num_train_timesteps, (size,), generator=random).to(device)
    z_t_BCHW = schedule.add_noise(z_0_BCHW, eps_BCHW, t_B)

    mask_BL, h_y_BLD = batch.mask_BL.to(device), batch.h_y_BLD.to(device)
    words_BKD = state.tiue(image_embeds_BE.to(device))
    words_BLD = place_words(words_BKD, mask_BL)
    h_r_BnD = rearranged_hidden_states(pipe.text_encoder, batch.input_ids_BL.to(device), mask_BL, words_BLD)
    h_u_BLD = fuse_hidden_states(h_y_BLD, h_r_BnD.to(h_y_BLD.dtype), mask_BL)
    prediction = pipe.unet(z_t_BCHW.to(dtype), t_B, encoder_hidden_states=h_u_BLD.to(dtype), return_dict=False)[0]

    is_v = schedule.config.prediction_type == "v_prediction"
    target_BCHW = schedule.get_velocity(z_0_BCHW, eps_BCHW, t_B) if is_v else eps_BCHW
    error_B = F.mse_loss(prediction.float(), target_BCHW, reduction="none").flatten(1).mean(dim=1)
    return (min_snr_weight(schedule.alphas_cumprod.to(device)[t_B], config.min_snr_gamma, is_v) * error_B).mean()


def min_snr_weight(alphas_cumprod_B: Tensor, gamma: float, is_v: bool) -> Tensor:
    """min(SNR, gamma) / SNR for epsilon, / (SNR + 1) for v (2303.09556, section 3.4); ones for gamma 0."""
    if not gamma:
        return torch.ones_like(alphas_cumprod_B)
    snr_B = alphas_cumprod_B / (1 - alphas_cumprod_B)
    return snr_B.clamp(max=gamma) / (snr_B + 1) if is_v else (gamma / snr_B).clamp(max=1)


def _generator(*parts: int | str) -> torch.Generator:
    # always on the CPU: the same step is the same on any device
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def _indices(count: int, config: TrainConfig, step: int) -> list[int]:
    """Rows of this step: each epoch is its own seeded permutation, and a batch may reach into the next."""
    first = step * config.batch_size
    places = range(first, first + config.batch_size)
    orders = {
        epoch: torch.randperm(count, generator=_generator(config.seed, "epoch", epoch))
        for epoch in {place // count for place in places}
    }
    return [int(orders[place // count][place % count]) for place in places]


def save_state(folder: Path, state: TrainState, config: TrainConfig, data: str) -> None:
    """The averaged TIUE, ready for `TIUE.from_pretrained(folder)`, and beside it all that resuming needs.

    Each file replaces its predecessor in one move, so an interrupted save leaves the old checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"tiue.{name}": tensor for name, tensor in state.tiue.state_dict().items()}
    tensors |= {f"ema.{name}": tensor for name, tensor in state.ema.state_dict().items()}
    for name, parameter in state.tiue.named_parameters():
        tensors |= {f"adam.{name}.{key}": value for key, value in state.optimizer.state[parameter].items()}
    metadata = {"step": str(state.step), "config": json.dumps(dataclasses.asdict(config)), "data": data}
    unfinished = folder / f"{STATE_FILE}.tmp"
    save_file({name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}, unfinished, metadata)
    os.replace(unfinished, folder / STATE_FILE)
    staging = folder / ".staging"
    state.ema.save_pretrained(staging)
    for file in staging.iterdir():
        os.replace(file, folder / file.name)
    staging.rmdir()


def load_state(folder: Path, pipe: UMMPipeline, config: TrainConfig, data: str) -> TrainState:
    """The state that `save_state` left in `folder`, to go on from.

    Raises UserError when there is none, it is damaged, or it belongs to other settings or data; `steps` may
    differ.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        raise UserError(f"nothing to resume: {path} does not exist")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}); delete it to start anew") from error
    saved = json.loads(metadata["config"])
    for name, value in dataclasses.asdict(config).items():
        if name != "steps" and saved.get(name) != value:
            raise UserError(f"cannot resume {folder}: it was trained with {name}={saved.get(name)}, not {value}")
    if metadata["data"] != data:
        raise UserError(f"cannot resume {folder}: it was trained on other pairs or with another base")
    state = initial_state(pipe, config)
    state.step = int(metadata["step"])
    for model, prefix in ((state.tiue, "tiue."), (state.ema, "ema.")):
        model.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    for name, parameter in state.tiue.named_parameters():
        prefix = f"adam.{name}."
        moments = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        # AdamW keeps its step counters on the CPU
        state.optimizer.state[parameter] = {k: v if k == "step" else v.to(pipe.device) for k, v in moments.items()}
    return state
