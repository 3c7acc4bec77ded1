"""Reading checkpoints that strangers saved: what can go wrong, and which of their files hold the weights."""

import os
import re
from pathlib import Path

from safetensors import SafetensorError

# What reading a stranger's checkpoint raises, by what is wrong with it: a file, its JSON, its sizes, its classes
LOAD_ERRORS = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError, SafetensorError)


def first_line(error: BaseException) -> str:
    """The start of what a library says; its kind where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))


def weights_variant(folder: str) -> str | None:
    """The variant, as "fp16", of a local model whose weights come in variants only; None where it has plain ones."""
    files = [path.name for path in Path(folder).glob("*.safetensors*")] if os.path.isdir(folder) else []
    found = [re.fullmatch(r"(?:diffusion_pytorch_)?model(?:\.(\w+))?(?:-\d+-of-\d+)?\.safetensors", f) for f in files]
    variants = sorted({match[1] or "" for match in found if match})
    return variants[0] or None if variants else None
