"""What every benchmark shares: both sides timed in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """Median of `ours` time over `theirs` time, pair by pair, with the least and the greatest pair."""

    median: float
    low: float
    high: float
    ours_seconds: float
    theirs_seconds: float

    def __str__(self) -> str:
        spread = f"{self.low:.2f}-{self.high:.2f}"
        return f"{self.ours_seconds:.3g} s against {self.theirs_seconds:.3g} s; ratio of each pair {spread}"


def time_ratio(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    repeats: int = 5,
    warm: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> Ratio:
    """Time both sides in turn, `repeats` times after `warm` untimed rounds, so that a slow minute hits both.

    `clock` is `time.process_time` where other work shares the processor.
    """
    pairs = []
    for i in range(warm + repeats):
        seconds = []
        for side in (ours, theirs):
            began = clock()
            side()
            seconds.append(clock() - began)
        if i >= warm:
            pairs.append(seconds)
    ratios = [a / b for a, b in pairs]
    mine, other = (statistics.median(side) for side in zip(*pairs, strict=True))
    return Ratio(statistics.median(ratios), min(ratios), max(ratios), mine, other)
