"""The protocol of grounding backends, and the detector's identity."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from PIL import Image

from curation.config import BuildConfig
from curation.records import Box


class Grounder(Protocol):
    def ground(self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]) -> list[list[list[Box]]]:
        """Boxes above the threshold for each phrase of each image: ``result[image][phrase]``.

        A row's boxes depend on that row alone, not on its batch-mates. Overlaps and areas are the caller's
        business. A row may have no phrases.
        """
        ...


def load_grounder(config: BuildConfig, detector: str) -> Grounder:
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
        if file.suffix in (".json", ".txt", ".safetensors", ".bin"):
            digest.update(file.name.encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return f"sha256:{digest.hexdigest()[:16]}"
