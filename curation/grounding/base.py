"""The protocol of grounding backends, and the detector's identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from PIL import Image

from curation.config import BuildConfig
from curation.errors import UserError
from curation.records import Box

# GroundingDINO's and Subject-Diffusion's (data_process.py).
PUBLISHED_BOX_THRESHOLD = 0.25
# A file beside a checkpoint's weights: {"box_threshold": 0.4}
OPERATING_POINT = "curation.json"


class Grounder(Protocol):
    def ground(self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]) -> list[list[list[Box]]]:
        """Boxes above the threshold for each phrase of each image: ``result[image][phrase]``.

        A row's boxes depend on that row alone, not on its batch-mates. Overlaps and areas are the caller's
        business. A row may have no phrases.
        """
        ...


def with_threshold(config: BuildConfig, detector: str | None) -> BuildConfig:
    """``config`` with a threshold: its own, else the checkpoint's operating point, else the published one.

    `python -m curation.evaluate --tune` finds a checkpoint's operating point.
    """
    if config.box_threshold is not None:
        return config
    if detector is None:
        return replace(config, box_threshold=PUBLISHED_BOX_THRESHOLD)
    file = Path(detector) / OPERATING_POINT
    try:
        threshold = json.loads(file.read_text())["box_threshold"] if file.is_file() else PUBLISHED_BOX_THRESHOLD
        return replace(config, box_threshold=float(threshold))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is no operating point ({error!r}); expected a box_threshold") from None


def load_grounder(config: BuildConfig, detector: str) -> Grounder:
    """Raises `UserError` where ``detector`` is no checkpoint."""
    config = with_threshold(config, detector)
    if config.backend == "groundingdino-py":
        from curation.grounding.groundingdino_py import load

        return load(config, detector)
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
