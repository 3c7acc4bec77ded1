"""Means and paired effects with intervals clustered by subject.

Images of one subject rise and fall together, so it is subjects that are counted, not images: an interval comes from
what a mean is with each subject left out in turn (the jackknife), and from Student's t. A case of two subjects belongs
to both: whichever of them is left out, the case goes. That counts what is a case's own twice, so what leaving out each
case gives is taken off once, as for two-way clusters (Cameron, Gelbach and Miller, 2011). With one case or two there
is no interval, nor where a subject is in all: with one degree of freedom it would leave the scale, or have no width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")

FEWEST_PARTS = 3
"""Cases and subjects below which there is no interval."""

Cluster = str | tuple[str, ...]
"""A value's subject, or the subjects that it belongs to."""

PairKey = tuple[Any, ...]
"""(cluster, prompt id, seed, ...): what two methods have in common when they are compared."""


@dataclass(frozen=True)
class Interval:
    """A mean with the bounds of its interval, which are None where there is none. `clusters` are the cases.

    `p` is the chance of a mean as far from 0, or further, if it were 0; None without an interval.
    """

    mean: float
    low: float | None
    high: float | None
    samples: int
    clusters: int
    p: float | None = None

    def __str__(self) -> str:
        bounds = "" if self.low is None else f" [{self.low:.3f}, {self.high:.3f}]"
        return f"{self.mean:.3f}{bounds}"


def mean_interval(values: Sequence[float], clusters: Sequence[Cluster], *, level: float = 0.95) -> Interval:
    """Mean of `values` with its interval. `clusters` names what each value belongs to; all belong to as many.

    Where each value has one subject and subjects have as many values, it is Student's interval of the subjects' means.
    `ValueError` when `values` is empty.
    """
    if len(values) == 0 or len(values) != len(clusters):
        raise ValueError(f"{len(values)} values for {len(clusters)} cluster names")
    numbers = np.asarray(values, dtype=float)
    members = [(each,) if isinstance(each, str) else each for each in clusters]
    cases, names = set(members), sorted({name for each in members for name in each})
    alone = Interval(float(numbers.mean()), None, None, len(numbers), len(cases))
    if len(cases) < FEWEST_PARTS or any(all(name in case for case in cases) for name in names):
        return alone
    off = numbers - alone.mean  # what is no number's own is lost in no sum

    def without(groups: Sequence[Sequence[Any]], of: Sequence[Any]) -> np.ndarray:
        """The mean without the values of each group."""
        place = {name: number for number, name in enumerate(of)}
        belong = np.array([place[name] for each in groups for name in each])
        weights = np.repeat(off, [len(each) for each in groups])
        return alone.mean - np.bincount(belong, weights=weights) / (len(numbers) - np.bincount(belong))

    by_case = without([(each,) for each in members], sorted(cases))
    return _bounded(alone, without(members, names), by_case, sum(map(len, members)) / len(members), level)


def _bounded(alone: Interval, by_subject: np.ndarray, by_case: np.ndarray, shared: float, level: float) -> Interval:
    """With the bounds that its values without each subject and without each case give; `shared` subjects are in one."""
    from scipy.special import stdtr, stdtrit  # here: a run that is finished needs none

    own = _jackknife(by_case)
    error = sqrt(max(_jackknife(by_subject) - (shared - 1) * own, own))
    degrees = min(len(by_case), len(by_subject)) - 1
    half = float(stdtrit(degrees, (1 + level) / 2)) * error
    far = abs(alone.mean) / error if error else float("inf") if alone.mean else 0.0
    return replace(alone, low=alone.mean - half, high=alone.mean + half, p=float(2 * stdtr(degrees, -far)))


def _jackknife(parts: np.ndarray) -> float:
    """Tukey's variance of what has these values without each of its parts."""
    return (len(parts) - 1) / len(parts) * float(((parts - parts.mean()) ** 2).sum())


def paired_effect(ours: Mapping[PairKey, float], theirs: Mapping[PairKey, float]) -> Interval | None:
    """Mean of `ours - theirs` over the keys of both, clustered by subject; None without a common key."""
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        return None
    return mean_interval([ours[key] - theirs[key] for key in common], [key[0] for key in common])


def jackknife_interval(
    members: Sequence[T], clusters: Sequence[Cluster], value: Callable[[Sequence[T]], float | None]
) -> Interval | None:
    """`value` of all members, which is no mean, with an interval from its values without each of the subjects.

    Resampling the members would put one in twice, and a distance of sets takes copies for likeness. None where `value`
    is None of all of them; no bounds where it is of a part, or the subjects are too few.
    """
    whole = value(members)
    if whole is None:
        return None
    belong = [(each,) if isinstance(each, str) else each for each in clusters]
    names = sorted({name for each in belong for name in each})
    alone = Interval(whole, None, None, len(members), len(set(belong)))
    if len(names) < FEWEST_PARTS or alone.clusters < FEWEST_PARTS:
        return alone
    cases = sorted(set(belong))
    by_subject = [value([m for m, its in zip(members, belong, strict=True) if name not in its]) for name in names]
    by_case = [value([m for m, its in zip(members, belong, strict=True) if its != case]) for case in cases]
    if None in by_subject or None in by_case:
        return alone
    shared = sum(map(len, belong)) / len(belong)
    return _bounded(alone, np.asarray(by_subject, float), np.asarray(by_case, float), shared, 0.95)


def holm(chances: Sequence[float | None]) -> list[float | None]:
    """The p values of a family, corrected for how many there are (Holm, 1979); those that are None stay so."""
    from statsmodels.stats.multitest import multipletests

    known = [p for p in chances if p is not None]
    corrected = iter(multipletests(known, method="holm")[1] if known else ())
    return [None if p is None else float(next(corrected)) for p in chances]


def detectable(cases: int, level: float = 0.05, power: float = 0.8) -> float | None:
    """The smallest mean of so many cases, in their standard deviations, that a two-sided t test finds with `power`;
    None for fewer than two.
    """
    if cases < 2:
        return None
    from statsmodels.stats.power import TTestPower

    return float(TTestPower().solve_power(nobs=cases, alpha=level, power=power))
