"""What every benchmark shares: a figure with its bar, both sides timed in turn, a table or JSON lines."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One measured figure; `bar` is what the project aims at, None where there is no aim; `note` is for people."""

    name: str
    value: float
    unit: str
    higher_is_better: bool
    bar: float | None = None
    note: str = ""

    @property
    def ok(self) -> bool | None:
        """Whether the bar is reached; None without one."""
        if self.bar is None:
            return None
        return self.value >= self.bar if self.higher_is_better else self.value <= self.bar

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "ok": self.ok}


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


def emit(figures: Iterable[Figure], as_json: bool) -> None:
    """Print the figures as they come: JSON lines, or one table at the end."""
    table = Table("figure", "value", "unit", "aim", "reached", "note")
    for figure in figures:
        if as_json:
            print(json.dumps(figure.as_dict()), flush=True)
            continue
        aim = "" if figure.bar is None else f"{'≥' if figure.higher_is_better else '≤'} {figure.bar:g}"
        reached = {None: "", True: "yes", False: "no"}[figure.ok]
        table.add_row(figure.name, f"{figure.value:.4g}", figure.unit, aim, reached, figure.note)
    if not as_json:
        Console().print(table)
