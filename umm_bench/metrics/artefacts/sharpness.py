"""Sharpness: is the image as sharp as the references, and does a blur of what the method saw come through?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from umm_bench.metrics.artefacts.rows import LEAST_HARM, rows
from umm_bench.metrics.base import Score, ScoredSample
from umm_bench.suites.base import Suite


@dataclass(frozen=True)
class SharpnessConfig:
    """Nothing to set."""


class Sharpness:
    """In octaves of the variance of the Laplacian; 0 is as sharp as the references, brought to the image's size.

    With `--degrade`, `sharpness_transfer` is where the image lies between them (0) and what methods saw (1).
    """

    name = "sharpness"
    config_class = SharpnessConfig

    def __init__(self, config: SharpnessConfig, suite: Suite) -> None:
        self.protocol = "sharpness/1: log2 of the variance of the Laplacian of gray, less the references' mean"
        self.weights: Sequence[Path] = ()

    def score(self, batch: Sequence[ScoredSample]) -> list[Score]:
        return [row for sample in batch for row in rows(self.name, self.protocol, sharpness, sample, is_harm)]


def is_harm(change: float) -> bool:
    """A blur takes sharpness away, noise adds some."""
    return abs(change) >= LEAST_HARM


def sharpness(image: Image.Image, size: tuple[int, int]) -> float:
    """log2 of 1 + the variance of the Laplacian of gray levels of 255, at `size`."""
    if image.size != size:
        image = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    gray = np.asarray(image.convert("L"), np.float64)
    inside = gray[1:-1, 1:-1]
    laplacian = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:] - 4 * inside
    return float(np.log2(1 + laplacian.var())) if laplacian.size else 0.0
