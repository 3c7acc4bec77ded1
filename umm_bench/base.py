"""The Stable Diffusion checkpoint that all methods of a run build on, loaded once and only when needed."""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umm_bench.errors import UserError
from umm_bench.seeding import path_digest

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTokenizer

logger = logging.getLogger(__name__)


def resolve_model(name: str, part: str) -> str:
    """Path or hub id behind a model argument.

    `"mini"` is the embedded family's `part` ("sd", "scoring_clip", "encoder"); an existing folder is itself;
    `owner/name` is left to the hub. Anything else is a `UserError`.
    """
    if name == "mini":
        from umm_bench.mini import family

        return str(family.path(part))
    if Path(name).is_dir():
        return name
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise UserError(f"model '{name}' is neither 'mini', nor a folder, nor a hub id like owner/name")
    return name


def model_fingerprint(location: str) -> str:
    """Content digest of a local folder; a hub id stands for itself."""
    return path_digest(Path(location)) if Path(location).is_dir() else location


def pick_device() -> str:
    """`"cuda"` where there is one, else `"cpu"`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


class Base:
    """A Stable Diffusion 1.x/2.x checkpoint in diffusers format. Making one loads nothing."""

    def __init__(self, name: str, location: str) -> None:
        self.name = name
        """As the user wrote it."""
        self.location = location
        """Local folder or hub id."""

    @cached_property
    def fingerprint(self) -> str:
        """Changes when the weights change."""
        return model_fingerprint(self.location)

    @cached_property
    def device(self) -> str:
        return pick_device()

    @cached_property
    def _pipeline(self) -> StableDiffusionPipeline:
        import torch
        from diffusers import StableDiffusionPipeline

        options: dict[str, Any] = {"safety_checker": None, "requires_safety_checker": False}
        try:
            pipe = StableDiffusionPipeline.from_pretrained(
                self.location, dtype=torch.float32, use_safetensors=True, **options
            )
        except OSError as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"cannot load base '{self.name}' from {self.location}: {reason}") from error
        pipe.set_progress_bar_config(disable=True)
        return pipe.to(self.device)

    @cached_property
    def tokenizer(self) -> CLIPTokenizer:
        """The pipeline's tokenizer, without its weights. `UserError` when it cannot be loaded."""
        from transformers import CLIPTokenizer

        try:
            return CLIPTokenizer.from_pretrained(self.location, subfolder="tokenizer")
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"cannot load the tokenizer of base '{self.name}' from {self.location}: {reason}"
            ) from error

    def pipeline(self) -> StableDiffusionPipeline:
        """The one shared pipeline, float32, on `device`. Treat it as read-only: copy what you train."""
        return self._pipeline


def load_base(name: str) -> Base:
    """`"mini"`, a folder in diffusers format, or a hub id. `UserError` when it is none of these."""
    return Base(name, resolve_model(name, "sd"))
