"""What another seed of training changes, kept apart from what another noise or another subject changes.

The trainings of a method (`--training-seeds N`) draw the same cases and prompts from the same noise. Their means differ
for two reasons: the training itself, and that each image is one draw of what its training would give. The second is
estimated from how the differences of two trainings scatter over images, and taken off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from umm_bench.bench.statistics import PairKey


@dataclass(frozen=True)
class Spread:
    """`between_sd` is of the means of trainings, `sampling_sd` what images alone make such a mean scatter by."""

    trainings: int
    mean: float
    between_sd: float
    sampling_sd: float


def spread(trainings: Sequence[Mapping[PairKey, float]]) -> Spread | None:
    """Of one method's trainings, on the images that all of them have; None with fewer than two, or than two images.

    Two-way analysis of variance without replication: training and image, the rest being the noise of an image.
    """
    if len(trainings) < 2:
        return None
    common = sorted(set.intersection(*(set(scores) for scores in trainings)))
    if len(common) < 2:
        return None
    values = np.array([[scores[key] for key in common] for scores in trainings])  # [trainings, images]
    means = values.mean(axis=1)
    rest = values - means[:, None] - values.mean(axis=0)[None, :] + values.mean()
    noise = float((rest**2).sum()) / ((len(trainings) - 1) * (len(common) - 1))
    between = float(means.var(ddof=1)) - noise / len(common)
    return Spread(len(trainings), float(values.mean()), sqrt(max(between, 0.0)), sqrt(noise / len(common)))
