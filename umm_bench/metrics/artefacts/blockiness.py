"""Blockiness: has the image the grid of a poor JPEG, and does that of what the method saw come through?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from umm_bench.metrics.artefacts.rows import LEAST_HARM, rows
from umm_bench.metrics.base import Score, ScoredSample
from umm_bench.suites.base import Suite

BLOCK = 8


@dataclass(frozen=True)
class BlockinessConfig:
    """Nothing to set."""


class Blockiness:
    """In octaves of the steps across the edges of blocks of 8 pixels over those beside them; 0 is as the references.

    With `--degrade`, `blockiness_transfer` is where the image lies between them (0) and what methods saw (1).
    """

    name = "blockiness"
    config_class = BlockinessConfig
    lower_is_better = ("blockiness",)

    def __init__(self, config: BlockinessConfig, suite: Suite) -> None:
        self.protocol = "blockiness/1: log2 of steps at a grid of 8 over steps beside it, less the references' mean"
        self.weights: Sequence[Path] = ()

    def score(self, batch: Sequence[ScoredSample]) -> list[Score]:
        return [row for sample in batch for row in rows(self.name, self.protocol, blockiness, sample, is_harm)]


def is_harm(change: float) -> bool:
    """A grid only adds to it: a blur is no grid that is less than none."""
    return change >= LEAST_HARM


def blockiness(image: Image.Image, size: tuple[int, int]) -> float:
    """log2 of the mean step of gray levels across block edges over the mean step elsewhere; at its own size: a picture
    that was resized has lost the grid.
    """
    gray = np.asarray(image.convert("L"), np.float64)
    across, elsewhere = [], []
    for steps in (np.abs(np.diff(gray, axis=1)), np.abs(np.diff(gray, axis=0)).T):
        edge = np.arange(steps.shape[1]) % BLOCK == BLOCK - 1
        across.append(steps[:, edge].ravel())
        elsewhere.append(steps[:, ~edge].ravel())
    if not min(sum(part.size for part in parts) for parts in (across, elsewhere)):
        return 0.0
    return float(np.log2((1 + np.concatenate(across).mean()) / (1 + np.concatenate(elsewhere).mean())))
