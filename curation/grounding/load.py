"""From a detector's name to its backend, and the detector's identity."""

from __future__ import annotations

import hashlib
from pathlib import Path

from curation.config import BuildConfig
from curation.grounding.base import Grounder, with_threshold


def load_grounder(config: BuildConfig, detector: str) -> Grounder:
    """Raises `UserError` where ``detector`` is no checkpoint."""
    config = with_threshold(config, detector)
    # Only here: a backend brings torch, which takes seconds, and a wrong argument is to be answered at once.
    if config.backend == "groundingdino-py":
        from curation.grounding import groundingdino_py

        return groundingdino_py.load(config, detector)
    from curation.grounding.transformers_backend import TransformersGrounder

    return TransformersGrounder.load(config, detector)


def detector_id(detector: str) -> str:
    """A local checkpoint's identity is its content, so that retrained weights are not taken for the old ones;
    a hub checkpoint's is its name."""
    path = Path(detector)
    if not path.is_dir():
        return f"hub:{detector}"
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()):
        if file.suffix in (".json", ".txt", ".safetensors", ".bin", ".pth", ".py"):
            digest.update(file.name.encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return f"sha256:{digest.hexdigest()[:16]}"
