"""The protocol of grounding backends, and the threshold that each works at."""

from __future__ import annotations

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
