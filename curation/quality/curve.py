"""Precision and recall over the threshold, as CSV and as a plot."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from curation.output.writer import write_text
from curation.quality.truth import Score

Point = tuple[float, Score]  # threshold, and what is mined at it

WIDTH, HEIGHT = 560, 340
LEFT, RIGHT, TOP, BOTTOM = 50, 110, 20, 44


@dataclass(frozen=True)
class Line:
    """In the plot's units; ``mark`` is the operating point, None where nothing is mined at it."""

    name: str
    colour: str
    points: tuple[tuple[float, float], ...]
    bar: float
    mark: tuple[float, float] | None
    label: str


def write_curve(path: Path, curve: Sequence[Point], operating: Point, precision_bar: float, recall_bar: float) -> None:
    """The CSV at ``path`` and the plot beside it (.svg), each whole or not at all; the plot marks ``operating``."""
    write_text(path, as_csv(curve))
    write_text(path.with_suffix(".svg"), as_svg(curve, operating, precision_bar, recall_bar))


def as_csv(curve: Sequence[Point]) -> str:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["threshold", "pairs", "right", "precision", "named", "found", "recall"])
    for at, s in curve:
        writer.writerow([at, s.mined, s.right, s.precision, s.named, s.found, s.recall])
    return stream.getvalue()


def as_svg(curve: Sequence[Point], operating: Point, precision_bar: float, recall_bar: float) -> str:
    from jinja2 import Environment, PackageLoader

    lines = [
        line("precision", "#1a5f9e", lambda s: s.precision, precision_bar, curve, operating),
        line("recall", "#b3372f", lambda s: s.recall, recall_bar, curve, operating),
    ]
    template = Environment(loader=PackageLoader("curation"), autoescape=True).get_template("curve.svg")
    return template.render(
        width=WIDTH, height=HEIGHT, left=LEFT, right=WIDTH - RIGHT, top=TOP, bottom=HEIGHT - BOTTOM,
        ticks=[(f"{tenths / 10:g}", place(tenths / 10, tenths / 10)) for tenths in range(0, 11, 2)],
        lines=lines, threshold=operating[0], x=place(operating[0], 0.0)[0],
    )  # fmt: skip


def line(
    name: str,
    colour: str,
    share: Callable[[Score], float],
    bar: float,
    curve: Sequence[Point],
    operating: Point,
) -> Line:
    """Without the thresholds at which there is no share, as nothing is mined."""
    points = tuple(place(at, share(s)) for at, s in curve if not math.isnan(share(s)))
    at, value = operating[0], share(operating[1])
    mark = None if math.isnan(value) else place(at, value)
    return Line(name, colour, points, place(0.0, bar)[1], mark, f"{name} {value:.2f}")


def place(threshold: float, share: float) -> tuple[float, float]:
    """Both axes go from 0 to 1; SVG's y grows downwards."""
    x = LEFT + threshold * (WIDTH - LEFT - RIGHT)
    y = HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)
    return round(x, 1), round(y, 1)
