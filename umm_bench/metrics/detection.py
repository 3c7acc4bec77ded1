"""Where things are in a picture, by their class nouns: a GroundingDINO, its boxes kept as features are."""

from __future__ import annotations

from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from curation.config import BuildConfig
from curation.errors import UserError as CurationError
from curation.grounding import load_grounder, with_threshold
from curation.records import Box
from curation.vision.crops import pixel_edges
from umm_bench.images import open_image
from umm_bench.metrics.base import Unusable
from umm_bench.metrics.embedding import Encoder

SAME = 0.5
"""Two boxes that overlap so far (intersection over union) are of one thing."""


class Detector(Encoder):
    """Boxes above the checkpoint's operating point, the surest first. Nothing loads before first use."""

    @cached_property
    def label(self) -> str:
        return f"{super().label} from {self._config.box_threshold}"

    @cached_property
    def _config(self) -> BuildConfig:
        return with_threshold(BuildConfig(), self.location)

    @cached_property
    def model(self) -> Any:
        try:
            return load_grounder(self._config, self.location)
        except CurationError as error:
            raise Unusable(f"cannot load detector {self.location}: {error}") from error

    def boxes(self, path: Path, phrase: str) -> list[Box]:
        """UserError for a picture that cannot be read."""
        rows = self.memory("boxes").of(path, lambda: self._find(path, phrase), phrase)
        return [Box(*(float(value) for value in row)) for row in rows]

    def edges(self, path: Path, phrase: str) -> list[tuple[int, int, int, int]]:
        """Left, top, right, bottom in pixels, inside the picture; boxes without a pixel are left out."""
        width, height = open_image(path).size
        found = [pixel_edges(box, width, height) for box in self.boxes(path, phrase)]
        inside = [(max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)) for x0, y0, x1, y1 in found]
        return [(x0, y0, x1, y1) for x0, y0, x1, y1 in inside if x0 < x1 and y0 < y1]

    def _find(self, path: Path, phrase: str) -> np.ndarray:
        ((boxes,),) = self.model.ground([open_image(path)], [[phrase]])
        kept: list[Box] = []
        for box in sorted(boxes, key=lambda box: -box.score):
            if all(box.iou(surer) < SAME for surer in kept):
                kept.append(box)
        rows = [(box.x0, box.y0, box.x1, box.y1, box.score) for box in kept]
        return np.asarray(rows, np.float64).reshape(-1, 5)


@cache
def detector(name: str) -> Detector:
    """The process-wide detector of this name: "mini", a folder or a hub id."""
    return Detector(name, "detector")
