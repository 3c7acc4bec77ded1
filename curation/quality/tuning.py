"""Detectors at equal rates of boxes for absent phrases: one table, and the threshold that a build reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from curation.config import BuildConfig
from curation.errors import UserError
from curation.grounding import load_grounder
from curation.grounding.base import OPERATING_POINT
from curation.output.writer import write_text
from curation.quality.labels import Labelled
from curation.quality.operating import Answers, Point, ask, interval, operating_point
from figures import Figure


@dataclass(frozen=True)
class Tuned:
    """``against`` is how much more recall there is than the first detector's at the same rate, with its interval."""

    detector: str
    answers: Answers
    point: Point
    against: tuple[float, float, float] | None

    def to_json(self, labels: str) -> dict[str, Any]:
        """What the operating point's file says."""
        point = self.point
        return {
            "box_threshold": point.threshold,
            "box_threshold_interval": list(point.threshold_interval),
            "false_accepts": round(point.accepted, 4),
            "false_accepts_asked": point.asked,
            "recall": round(point.recall, 4),
            "recall_interval": [round(edge, 4) for edge in point.recall_interval],
            "labels": labels,
            "pictures": self.answers.pictures,
            "absent_phrases": len(self.answers.absent_N),
            "present_phrases": len(self.answers.present_M),
        }


def tune(
    labelled: Sequence[Labelled], detectors: Sequence[str], rates: Sequence[float], config: BuildConfig
) -> Iterator[Tuned]:
    """Each detector at each rate, in the order given. One detector is in memory at a time."""
    first: dict[float, Point] = {}
    for detector in detectors:
        answers = ask(load_grounder(replace(config, box_threshold=0.0), detector), labelled)
        for rate in rates:
            point = operating_point(answers, rate)
            base = first.setdefault(rate, point)
            yield Tuned(detector, answers, point, None if base is point else difference(point, base))


def difference(point: Point, base: Point) -> tuple[float, float, float]:
    """Paired: both detectors saw the same pictures in each resample."""
    return (point.recall - base.recall, *interval(point.recalls_R - base.recalls_R))


def save(tuned: Sequence[Tuned], labels: str, file: str) -> Path:
    """Writes the one operating point to ``file``, or beside the checkpoint's weights where that is empty.

    Raises:
        UserError: there are several, or the checkpoint is no local folder.
    """
    if len(tuned) != 1:
        raise UserError("--save keeps one threshold; name one --detector and one rate of --false-accepts")
    (one,) = tuned
    if not file and not Path(one.detector).is_dir():
        raise UserError(f"--save: {one.detector} is no local checkpoint; name a file, and build with --operating-point")
    path = Path(file) if file else Path(one.detector) / OPERATING_POINT
    write_text(path, json.dumps(one.to_json(labels)) + "\n")
    return path


def show(tuned: Sequence[Tuned], labels: str) -> None:
    columns = ["detector", "boxes for absent", "threshold", "95 %", "recall", "95 %"]
    compared = any(one.against for one in tuned)
    table = Table(*columns, *(["against the first"] if compared else []), box=None, title=None)
    for one in tuned:
        point = one.point
        low, high = point.threshold_interval
        cells = [short(one.detector), f"{point.accepted:.3f} (at most {point.asked:g})"]
        cells += [f"{point.threshold:.3f}", f"{low:.3f}-{high:.3f}"]
        cells += [f"{point.recall:.3f}", "{:.3f}-{:.3f}".format(*point.recall_interval)]
        if compared:
            cells.append("{:+.3f} ({:+.3f} to {:+.3f})".format(*one.against) if one.against else "")
        table.add_row(*cells)
    Console().print(table)
    for one in {one.detector: one for one in tuned}.values():
        answers = one.answers
        Console().print(
            f"{short(one.detector)}: {answers.pictures} pictures of {labels}, {len(answers.absent_N)} absent phrases, "
            f"{len(answers.present_M)} present ones",
            style="dim",
            highlight=False,
            soft_wrap=True,
        )


def short(detector: str) -> str:
    return Path(detector).name if Path(detector).is_dir() else detector


def figures(tuned: Sequence[Tuned]) -> Iterator[Figure]:
    for one in tuned:
        point, name = one.point, f"{short(one.detector)}.{one.point.asked:g}"
        note = "95 %: {:.3f}-{:.3f}"
        yield Figure(
            f"tuned.threshold.{name}", point.threshold, "score", False, None, note.format(*point.threshold_interval)
        )
        count = f"{len(one.answers.absent_N)} absent phrases"
        yield Figure(f"tuned.false_accepts.{name}", point.accepted, "share", False, point.asked, count)
        yield Figure(f"tuned.recall.{name}", point.recall, "share", True, None, note.format(*point.recall_interval))
