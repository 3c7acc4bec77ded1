"""Fusion of the predictions with and without the subject (UMM-Diffusion, 2303.09319, section 3).

A branch is the set of subjects that are images in it: `frozenset({0})` predicts eps_u, the empty set eps_y, and
None is the unconditional eps_0. Shapes: B batch, C channels, H height, W width.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from umm_bench.errors import UserError

Branch = frozenset[int] | None
UNCONDITIONAL: Branch = None
TEXT: Branch = frozenset()

Schedule = float | Sequence[float] | Callable[[float], float]
"""A number, a list stretched over the steps that run, or a function of the progress in [0, 1)."""

Interval = tuple[float, float]
"""Start (included) and stop (excluded) as fractions of the steps that run."""


@dataclass(frozen=True)
class Level:
    """One branch of the fusion: its share of the prediction, and which subjects are images in it."""

    weight: float
    subjects: frozenset[int]


def fusion_levels(alphas: Sequence[float]) -> tuple[Level, ...]:
    """The branches that a list of subjects needs beside the unconditional one; their weights sum to one.

    One subject gives (1 - alpha) for h_y and alpha for h_u. Several subjects are stacked by alpha: the level
    at height tau shows every subject with alpha > tau, and weighs as much as it is high. Equal alphas
    therefore share one h_u, and no branch has zero weight: alpha = 0 leaves h_y alone, alpha = 1 leaves h_u
    alone.

    Raises UserError for an alpha outside [0, 1].
    """
    for alpha in alphas:
        if not 0.0 <= alpha <= 1.0:
            raise UserError(f"alpha is {alpha}; it must lie between 0 (text only) and 1 (image only)")
    edges = sorted({0.0, 1.0, *map(float, alphas)})
    return tuple(
        Level(top - bottom, frozenset(i for i, alpha in enumerate(alphas) if alpha > bottom))
        for bottom, top in pairwise(edges)
    )


def fusion_weights(levels: Sequence[Level], text_scale: float, subject_scale: float) -> dict[Branch, float]:
    """The c_k, none of them zero, that make the prediction sum_k c_k eps_k; they sum to one.

        eps = eps_0 + s_text (eps_y - eps_0) + s_subject sum_k w_k (eps_k - eps_y)

    With one subject and both scales s this is
    eps = eps_0 + s [ alpha (eps_u - eps_0) + (1 - alpha) (eps_y - eps_0) ].
    """
    text_weight = sum(level.weight for level in levels if not level.subjects)
    weights = {UNCONDITIONAL: 1.0 - text_scale}
    weights |= {level.subjects: subject_scale * level.weight for level in levels if level.subjects}
    weights[TEXT] = text_scale - subject_scale + subject_scale * text_weight
    return {branch: weight for branch, weight in weights.items() if weight}


def fused_guidance(eps: Mapping[Branch, Tensor], weights: Mapping[Branch, float]) -> Tensor:
    """sum_k c_k eps_k [B, C, H, W], as differences from the first branch: those are small, and half precision
    keeps them.
    """
    first, *others = weights
    eps_BCHW = eps[first]
    return eps_BCHW + sum(weights[branch] * (eps[branch] - eps_BCHW) for branch in others)


class Differences:
    """Fast mode: what separates the branches changes slowly from step to step.

    Every `period`-th step evaluates all branches. The steps between evaluate the weightiest conditional branch and
    the unconditional one, the latter only at every other step of the second half, and take the rest from their latest
    difference to the first: 1.83 rows a step. How near that is to the exact images depends on the weights;
    `benchmarks.sampling` measures it (`sampling.fast_psnr`).
    """

    def __init__(self, period: int = 10):
        """`period` 1 is exact."""
        self.period = period
        self._anchor: Branch = None
        self._to_anchor: dict[Branch, Tensor] = {}

    def branches(self, step: int, progress: float, weights: Mapping[Branch, float]) -> list[Branch]:
        """The branches to evaluate at `step` for `complete` to give all of `weights`."""
        anchor = _anchor(weights)
        known = anchor == self._anchor and weights.keys() <= self._to_anchor.keys()
        if step % self.period == 0 or not known:
            return list(weights)
        alone = progress >= 0.5 and step % 2 == 1
        return [branch for branch in weights if branch == anchor or (branch is UNCONDITIONAL and not alone)]

    def complete(self, eps: Mapping[Branch, Tensor], weights: Mapping[Branch, float]) -> Mapping[Branch, Tensor]:
        """eps_k = eps_anchor + the latest (eps_k - eps_anchor), for every k that was not evaluated."""
        if self.period == 1:
            return eps
        anchor = _anchor(weights)
        if anchor != self._anchor:
            self._anchor, self._to_anchor = anchor, {}
        self._to_anchor |= {branch: eps_k - eps[anchor] for branch, eps_k in eps.items()}
        return {k: eps[k] if k in eps else eps[anchor] + self._to_anchor[k] for k in weights}


def _anchor(weights: Mapping[Branch, float]) -> Branch:
    return max((branch for branch in weights if branch is not UNCONDITIONAL), key=lambda branch: weights[branch])


@dataclass(frozen=True)
class Guidance:
    """Which branches count how much at each step of a run.

    Outside `text_interval` the guidance by text is off (its scale is 1); outside `subject_interval` every alpha is
    0. `subject_scale` None follows the scale of the text. `alphas` has one schedule a subject.
    """

    alphas: tuple[Schedule, ...] = ()
    subject_scale: float | None = None
    text_interval: Interval = (0.0, 1.0)
    subject_interval: Interval = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Raises UserError for an interval outside [0, 1] and a scale that is negative or not finite."""
        for start, stop in (self.text_interval, self.subject_interval):
            if not 0.0 <= start <= stop <= 1.0:
                raise UserError(f"the interval {start}..{stop} must lie between 0 and 1, start before stop")
        if self.subject_scale is not None and not 0.0 <= self.subject_scale < math.inf:
            raise UserError(f"the subject's guidance scale is {self.subject_scale}; it must be finite and not negative")

    def levels(self, progress: float) -> tuple[Level, ...]:
        """The levels at `progress` in [0, 1). Raises UserError for an alpha outside [0, 1]."""
        drawn = _inside(progress, self.subject_interval)
        return fusion_levels([_value(alpha, progress) if drawn else 0.0 for alpha in self.alphas])

    def weights(self, progress: float, guidance_scale: float) -> dict[Branch, float]:
        """`fusion_weights` at `progress`; a `guidance_scale` of 1 or less is off, as in diffusers."""
        text_scale = max(guidance_scale, 1.0) if _inside(progress, self.text_interval) else 1.0
        subject_scale = text_scale if self.subject_scale is None else self.subject_scale
        return fusion_weights(self.levels(progress), text_scale, subject_scale)


def _inside(progress: float, interval: Interval) -> bool:
    return interval[0] <= progress < interval[1]


def _value(schedule: Schedule, progress: float) -> float:
    if callable(schedule):
        return float(schedule(progress))
    if isinstance(schedule, Sequence):
        if not schedule:
            raise UserError("the list of alphas is empty; give one for each step, or one number")
        return float(schedule[int(progress * len(schedule))])
    return float(schedule)
