"""What loading any checkpoint, a folder or a hub name, has in common: its identity, its errors, and its device."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
    import torch  # identities are asked for before anything is loaded

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {name}: torch sees no GPU here; use --device cpu")
    return name


def checkpoint_id(checkpoint: str) -> str:
    """A local checkpoint's identity is its content, so that retrained weights are not taken for the old ones;
    a hub checkpoint's is its name."""
    path = Path(checkpoint)
    if not path.is_dir():
        return f"hub:{checkpoint}"
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()):
        if file.suffix in (".json", ".txt", ".safetensors", ".bin", ".pth", ".py"):
            digest.update(file.name.encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return f"sha256:{digest.hexdigest()[:16]}"
