"""Training states on disk: replaced whole, and refused by a run that they do not belong to."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from umm_bench.errors import UserError
from umm_bench.umm.encoded import EncodedPairs, tokenizer_digest, weights_digest
from umm_bench.umm.pipeline import UMMPipeline
from umm_bench.umm.settings import TrainConfig
from umm_bench.umm.tiue import TIUE
from umm_bench.umm.trainer import TrainState, initial_state
from umm_bench.weights import LOAD_ERRORS, first_line

STATE_FILE = "training_state.safetensors"
# The rate is set anew at each step. How a step's rows are split does not change the run, only their number does.
_MAY_DIFFER = ("steps", "learning_rate", "warmup_steps", "batch_size", "gradient_accumulation_steps")


def run_identity(
    pipe: UMMPipeline, pairs: EncodedPairs, rows_per_step: int, start: TIUE | None = None
) -> dict[str, str]:
    """What a resumed run must share with the one that was stopped, beside the settings; by name. `start` is the TIUE
    that it began with, if any.

    Call it before `train` lowers the precision of the models.
    """
    models = {
        name.replace("_", " "): weights_digest(getattr(pipe, name))
        for name in ("unet", "vae", "text_encoder", "image_encoder")
    }
    settings = {name: value for name, value in pipe.scheduler.config.items() if not name.startswith("_")}
    schedule = json.dumps(settings, sort_keys=True, default=str)
    begun = {} if start is None else {"TIUE to begin with": weights_digest(start)}
    return {
        **models,
        **begun,
        "tokenizer": tokenizer_digest(pipe.tokenizer),
        "feature extractor": hashlib.sha256(pipe.feature_extractor.to_json_string().encode()).hexdigest(),
        "noise schedule": hashlib.sha256(schedule.encode()).hexdigest(),
        "data": pairs.digest,
        "number of rows a step": str(rows_per_step),
    }


def save_state(folder: Path, state: TrainState, config: TrainConfig, identity: dict[str, str]) -> None:
    """The averaged TIUE, ready for `TIUE.from_pretrained(folder)`, and beside it all that resuming needs.

    Each file replaces its predecessor in one move, the state last: after an interrupted save the run goes on from the
    old one, and writes the TIUE again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"tiue.{name}": tensor for name, tensor in state.tiue.state_dict().items()}
    tensors |= {f"ema.{name}": tensor for name, tensor in state.ema.state_dict().items()}
    for name, parameter in state.tiue.named_parameters():
        tensors |= {f"adam.{name}.{key}": value for key, value in state.optimizer.state[parameter].items()}
    metadata = {
        "step": str(state.step),
        "config": json.dumps(dataclasses.asdict(config)),
        "identity": json.dumps(identity),
    }
    unfinished = folder / f"{STATE_FILE}.tmp"
    save_file({name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}, unfinished, metadata)
    staging = folder / ".staging"
    state.ema.save_pretrained(staging)
    for file in staging.iterdir():
        os.replace(file, folder / file.name)
    staging.rmdir()
    os.replace(unfinished, folder / STATE_FILE)


def check_encoder(folder: Path, image_encoder: torch.nn.Module) -> None:
    """Raises UserError where a training in `folder` left the TIUE there, and its image encoder was another."""
    try:
        with safe_open(folder / STATE_FILE, framework="pt") as file:
            known = json.loads(file.metadata()["identity"]).get("image encoder")
    except LOAD_ERRORS:  # most TIUEs come without it
        return
    if known is not None and known != weights_digest(image_encoder):
        raise UserError(
            f"the TIUE in {folder} was trained with another image encoder than this one, whose embeddings mean nothing "
            "to it; give that one (--image-encoder), or train the TIUE again (umm_bench.train)"
        )


def load_state(folder: Path, pipe: UMMPipeline, config: TrainConfig, identity: dict[str, str]) -> TrainState:
    """The state that `save_state` left in `folder`, to go on from.

    Raises UserError when there is none, it is damaged, or it belongs to other settings, models or data;
    `steps`, `learning_rate`, `warmup_steps` and the split of a step's rows into passes and processes may differ.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        raise UserError(f"nothing to resume: {path} does not exist")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        # a setting that is younger than the state was as it is by default
        saved = dataclasses.asdict(TrainConfig()) | json.loads(metadata["config"])
        if saved.pop("residual", False):  # as it was called before there were three
            saved["placement"] = "add"
        known, step = dict(json.loads(metadata["identity"])), int(metadata["step"])
    except LOAD_ERRORS as error:
        raise UserError(_damaged(path, error)) from error
    for name, value in dataclasses.asdict(config).items():
        if name not in _MAY_DIFFER and saved[name] != value:
            raise UserError(f"cannot resume {folder}: it was trained with {name}={saved[name]}, not {value}")
    for name, value in identity.items():
        if known.get(name) != value:
            raise UserError(f"cannot resume {folder}: the {name} is not the one that it was trained with")
    state = initial_state(pipe, config)
    state.step = step
    try:
        _fill(state, tensors)
    except LOAD_ERRORS as error:
        raise UserError(_damaged(path, error)) from error
    return state


def _fill(state: TrainState, tensors: dict[str, Tensor]) -> None:
    for model, prefix in ((state.tiue, "tiue."), (state.ema, "ema.")):
        model.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    for name, parameter in state.tiue.named_parameters():
        prefix = f"adam.{name}."
        moments = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        shapes = {key: tuple(value.shape) for key, value in moments.items()}
        if shapes not in ({}, {"step": (), "exp_avg": tuple(parameter.shape), "exp_avg_sq": tuple(parameter.shape)}):
            raise ValueError(f"{prefix} has {shapes}")
        state.optimizer.state[parameter] = {k: v.to(parameter.device) for k, v in moments.items()}


def _damaged(path: Path, error: Exception) -> str:
    return f"{path} is damaged ({first_line(error)}); delete it to start anew"
