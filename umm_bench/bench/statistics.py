"""Means and paired effects with bootstrap intervals clustered by subject.

Images of one subject rise and fall together, so subjects are resampled, not images. With few subjects such an
interval is still somewhat too narrow, and with one it does not exist.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from umm_bench.seeding import seed_for

T = TypeVar("T")

FEWEST_PARTS = 3
"""Clusters below which the jackknife says nothing."""

PairKey = tuple[Any, ...]
"""(case id, prompt id, seed, ...): what two methods have in common when they are compared. The first is the cluster."""


@dataclass(frozen=True)
class Interval:
    """A mean with the bounds of its interval; the bounds are None when there is only one cluster."""

    mean: float
    low: float | None
    high: float | None
    samples: int
    clusters: int

    def __str__(self) -> str:
        bounds = "" if self.low is None else f" [{self.low:.3f}, {self.high:.3f}]"
        return f"{self.mean:.3f}{bounds}"


def mean_interval(
    values: Sequence[float],
    clusters: Sequence[str],
    *,
    seed: int = 0,
    level: float = 0.95,
    resamples: int = 4000,
) -> Interval:
    """Mean of `values` with a percentile bootstrap interval over whole clusters.

    `clusters` names each value's cluster. Same arguments, same interval. `ValueError` when `values` is empty.
    """
    if len(values) == 0 or len(values) != len(clusters):
        raise ValueError(f"{len(values)} values for {len(clusters)} cluster names")
    numbers = np.asarray(values, dtype=float)
    names, members = np.unique(np.asarray(clusters), return_inverse=True)
    if len(names) == 1:
        return Interval(float(numbers.mean()), None, None, len(numbers), 1)
    sums = np.bincount(members, weights=numbers)
    counts = np.bincount(members)
    random = np.random.default_rng(seed_for("bootstrap", seed))
    drawn = random.integers(len(names), size=(resamples, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(numbers.mean()), float(low), float(high), len(numbers), len(names))


def paired_effect(ours: Mapping[PairKey, float], theirs: Mapping[PairKey, float], *, seed: int = 0) -> Interval | None:
    """Mean of `ours - theirs` over the keys of both, clustered by case; None without a common key."""
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        return None
    differences = [ours[key] - theirs[key] for key in common]
    return mean_interval(differences, [key[0] for key in common], seed=seed)


def jackknife_interval(
    members: Sequence[T], clusters: Sequence[str], value: Callable[[Sequence[T]], float | None], *, seed: int = 0
) -> Interval | None:
    """`value` of all members, which is no mean, with an interval from its values without each of the clusters.

    These give a pseudo-value a cluster (Tukey's jackknife), which are resampled. Resampling the members themselves
    would put one in twice, and a distance of sets takes copies for likeness. None where `value` is None of all of them;
    no bounds where it is of a part, or the clusters are too few.
    """
    whole = value(members)
    if whole is None:
        return None
    names = sorted(set(clusters))
    alone = Interval(whole, None, None, len(members), len(names))
    parts = [value([m for m, its in zip(members, clusters, strict=True) if its != name]) for name in names]
    if len(names) < FEWEST_PARTS or None in parts:
        return alone
    pseudo = [len(names) * whole - (len(names) - 1) * part for part in parts if part is not None]
    spread = mean_interval(pseudo, names, seed=seed)
    return replace(alone, low=spread.low, high=spread.high)
