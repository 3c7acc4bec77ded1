"""The protocol of grounding backends, and the threshold that each works at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from curation.config import BuildConfig
from curation.errors import UserError
from curation.grounding.families import DEFAULT_BOX_THRESHOLD, published_threshold
from curation.records import Box

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
    """``config`` with a threshold: its own, else that of its operating point or the checkpoint's, else its family's.

    Raises:
        UserError: an operating point is there and cannot be read.
    """
    if config.box_threshold is not None:
        return config
    point = read_operating_point(config, detector)
    if point is not None:
        return replace(config, box_threshold=float(point["box_threshold"]))
    return replace(config, box_threshold=DEFAULT_BOX_THRESHOLD if detector is None else published_threshold(detector))


def read_operating_point(config: BuildConfig, detector: str | None) -> dict[str, Any] | None:
    """What `python -m curation.evaluate --tune --save` found, in ``config.operating_point`` or beside the weights.

    Raises:
        UserError: the file that is named is not there, or is none.
    """
    if config.operating_point is not None:
        file = Path(config.operating_point)
    elif detector is not None and (Path(detector) / OPERATING_POINT).is_file():
        file = Path(detector) / OPERATING_POINT
    else:
        return None
    try:
        point = json.loads(file.read_text())
        if not 0 <= float(point["box_threshold"]) <= 1:
            raise ValueError("box_threshold must be from 0 to 1")
        return dict(point)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is no operating point ({error!r}); expected a box_threshold") from None
