"""What loading any checkpoint, a folder or a hub name, has in common: its errors, and the device it goes to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from curation.errors import UserError


@contextmanager
def loading(argument: str, checkpoint: str) -> Iterator[None]:
    """What a library says about the checkpoint that ``argument`` names becomes one line."""
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        first_line = (str(error).splitlines() or [repr(error)])[0]
        raise UserError(f"{argument} {checkpoint} cannot be loaded: {first_line}") from error


def pick_device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {name}: torch sees no GPU here; use --device cpu")
    return name
