"""Where each point of the trade-off plot lies, in SVG units; the template draws it."""

import math
from dataclasses import dataclass

from reports.data import Interval, Report
from umm_bench.bench import statistics

WIDTH, HEIGHT = 600, 400
LEFT, RIGHT, TOP, BOTTOM = 58, 24, 18, 46


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Point:
    method: str
    x: float
    y: float
    x_range: tuple[float, float] | None
    y_range: tuple[float, float] | None
    label_left: bool


@dataclass(frozen=True)
class Plot:
    x_metric: str
    y_metric: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    points: tuple[Point, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def trade_off(report: Report, x_metric: str = "clip_t", y_metric: str = "dino") -> Plot | None:
    """Prompt fidelity against subject fidelity, one point a method; None when no method has both scores."""
    pairs = {
        method: (report.summaries[method, x_metric], report.summaries[method, y_metric])
        for method in report.methods
        if (method, x_metric) in report.summaries and (method, y_metric) in report.summaries
    }
    if not pairs:
        return None
    x_axis = Axis([x for x, _ in pairs.values()], LEFT, WIDTH - RIGHT)
    y_axis = Axis([y for _, y in pairs.values()], HEIGHT - BOTTOM, TOP)
    points = tuple(
        Point(
            method,
            x_axis.place(x.mean),
            y_axis.place(y.mean),
            x_axis.span(x),
            y_axis.span(y),
            label_left=x_axis.place(x.mean) > WIDTH * 0.72,
        )
        for method, (x, y) in pairs.items()
    )
    return Plot(x_metric, y_metric, x_axis.ticks(), y_axis.ticks(), points)


class Axis:
    """A linear scale from values to the pixels between `start` and `end`, a tenth of room on both sides."""

    def __init__(self, intervals: list[Interval], start: float, end: float) -> None:
        bounds = [value for interval in intervals for value in extent(interval)]
        low, high = min(bounds), max(bounds)
        room = 0.1 * (high - low) or 0.05
        self.low, self.high, self.start, self.end = low - room, high + room, start, end

    def place(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def span(self, interval: Interval) -> tuple[float, float] | None:
        if interval.low is None or interval.high is None:
            return None
        return self.place(interval.low), self.place(interval.high)

    def ticks(self) -> tuple[Tick, ...]:
        """Four or so round numbers."""
        rough = (self.high - self.low) / 4
        scale = 10 ** math.floor(math.log10(rough))
        step = min((scale * factor for factor in (1, 2, 5, 10)), key=lambda size: abs(size - rough))
        digits = max(0, -math.floor(math.log10(step)))
        numbers = range(math.ceil(self.low / step), math.floor(self.high / step) + 1)
        return tuple(Tick(self.place(i * step), f"{i * step:.{digits}f}") for i in numbers)


def extent(interval: Interval | statistics.Interval) -> tuple[float, float]:
    """The lowest and highest value that an interval reaches; a mean without bounds is its own."""
    low = interval.mean if interval.low is None else interval.low
    high = interval.mean if interval.high is None else interval.high
    return low, high
