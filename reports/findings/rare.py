"""Rare subjects: how scores go with how seldom a class was seen and how unusual a subject is, and what to mine."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from reports.data import FIRST_METRICS, Reader, Sample, in_order
from umm_bench.bench.selection import FLOOR
from umm_bench.bench.statistics import Interval, mean_interval

TABLES = {
    "rarity": "subject, class_noun, corpus, count, instance_distance, stratum",
    "rarity_fits": "method, metric, axis, slope, low, high, intercept, subjects, half_at, half_low, half_high,"
    " band_json, note",
    "rarity_focus": "concept, count, reason, rank",
    "focus_gains": "before_run_id, method, metric, subject, before, after",
}
AXES = {"count": "times its class was seen (never: at 0.5)", "instance": "how unusual it is (distance)"}
SHOWN = 4  # pictures a method of the rarest that work, and of the commonest that fail
FOCUS_SHOWN = 30
NEVER = 0.5  # the count that a class never seen is drawn at


@dataclass(frozen=True)
class Subject:
    """`count` is of its class in `corpus`, None where nobody knows; so is `distance`, from the prior of its class."""

    subject: str
    class_noun: str
    corpus: str | None
    count: int | None
    distance: float | None
    stratum: str | None

    def on(self, axis: str) -> float | None:
        """Its value on an axis, in the axis's own units."""
        return self.count if axis == "count" else self.distance


@dataclass(frozen=True)
class Fit:
    """A line of the score over log10 of the count, or over the distance; `band` has points x, low, high."""

    method: str
    metric: str
    axis: str
    slope: float
    low: float | None
    high: float | None
    intercept: float
    subjects: int
    half_at: float | None
    half_low: float | None
    half_high: float | None
    band: tuple[tuple[float, ...], ...]
    note: str


@dataclass(frozen=True)
class Focus:
    concept: str
    count: int | None
    reason: str
    rank: int


@dataclass(frozen=True)
class Shown:
    """A picture of a subject, with the mean that speaks of it."""

    sample: Sample
    subject: Subject
    mean: float


@dataclass(frozen=True)
class Gain:
    """What mining for the subjects changed, in the mean over them."""

    before_run_id: str
    method: str
    metric: str
    before: float
    after: float
    effect: Interval


@dataclass(frozen=True)
class Rare:
    subjects: tuple[Subject, ...]
    fits: tuple[Fit, ...]
    focus: tuple[Focus, ...]
    gains: tuple[Gain, ...]
    samples: tuple[Sample, ...]  # of one subject

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """At most two to show: the first that there are, of those fitted where any is."""
        fitted = {fit.metric for fit in self.fits}
        found = fitted or {metric for sample in self.samples for metric in sample.scores}
        fidelity = [metric for metric in ("identity", "dino") if metric in found]
        return tuple(fidelity or in_order(found, FIRST_METRICS)[:1])

    @cached_property
    def corpora(self) -> tuple[str, ...]:
        return tuple(sorted({each.corpus for each in self.subjects if each.corpus}))

    def means(self, metric: str) -> dict[str, dict[str, float]]:
        """Method -> subject -> its mean."""
        values: dict[str, dict[str, list[float]]] = {}
        for sample in self.samples:
            if metric in sample.scores:
                values.setdefault(sample.method, {}).setdefault(sample.subject, []).append(sample.scores[metric])
        return {
            method: {subject: sum(scores) / len(scores) for subject, scores in by_subject.items()}
            for method, by_subject in values.items()
        }

    def crossed(self, means: dict[str, float]) -> list[tuple[str, list[tuple[float | None, int]]]]:
        """Classes often and seldom seen, by usual and unusual subjects, split at the medians: mean, and of how many."""
        known = [each for each in self.subjects if None not in (each.count, each.distance) and each.subject in means]
        if not known:
            return []
        count, distance = (_middle(each.on(axis) or 0 for each in known) for axis in AXES)
        rows = []
        for name, often in (("often seen", True), ("seldom seen", False)):
            cells: list[tuple[float | None, int]] = []
            for usual in (True, False):
                chosen = [
                    means[each.subject]
                    for each in known
                    if ((each.count or 0) >= count) == often and ((each.distance or 0) <= distance) == usual
                ]
                cells.append((sum(chosen) / len(chosen) if chosen else None, len(chosen)))
            rows.append((name, cells))
        return rows

    def extremes(self, metric: str) -> dict[str, tuple[list[Shown], list[Shown]]]:
        """Method -> the rarest subjects that work and the commonest that fail; plain SD only where it is alone.

        A verdict works from a half on, another score from the method's own median on.
        """
        counted = sorted((each for each in self.subjects if each.count is not None), key=lambda each: each.count or 0)
        found = {}
        means = self.means(metric)
        for method, by_subject in means.items():
            if method == FLOOR and len(means) > 1:
                continue
            bar = 0.5 if metric == "identity" else _middle(by_subject.values())
            seen = [each for each in counted if each.subject in by_subject]
            work = [each for each in seen if by_subject[each.subject] >= bar]
            fail = [each for each in reversed(seen) if by_subject[each.subject] < bar]
            found[method] = (
                [self._shown(each, method, metric, by_subject, max) for each in work[:SHOWN]],
                [self._shown(each, method, metric, by_subject, min) for each in fail[:SHOWN]],
            )
        return found

    def _shown(
        self, subject: Subject, method: str, metric: str, means: dict[str, float], pick: Callable[..., Sample]
    ) -> Shown:
        own = [s for s in self.samples if (s.method, s.subject) == (method, subject.subject) and metric in s.scores]
        return Shown(pick(own, key=lambda sample: sample.scores[metric]), subject, means[subject.subject])


def read_rare(reader: Reader, samples: Iterable[Sample]) -> Rare:
    """What the store has of rarity; an earlier store, or a run that nobody looked at so, has nothing."""
    there = {name for (name,) in reader.connection.execute("select table_name from duckdb_tables()").fetchall()}
    rows = {
        table: reader.rows(f"select {columns} from {table} where run_id = ? order by all") if table in there else []
        for table, columns in TABLES.items()
    }
    subjects = tuple(Subject(*row) for row in rows["rarity"])
    known = {each.subject for each in subjects}
    fits = tuple(_fit(row) for row in rows["rarity_fits"])
    focus = sorted((Focus(*row) for row in rows["rarity_focus"]), key=lambda each: each.rank)
    single = tuple(sample for sample in samples if sample.subject in known)
    return Rare(subjects, fits, tuple(focus), tuple(_gains(rows["focus_gains"])), single)


def _fit(row: tuple[Any, ...]) -> Fit:
    method, metric, axis, slope, low, high, intercept, subjects, at, least, most, band, note = row
    points = tuple(tuple(point) for point in json.loads(band or "[]"))
    return Fit(method, metric, axis, slope, low, high, intercept, subjects, at, least, most, points, note or "")


def _gains(rows: Iterable[tuple[Any, ...]]) -> Iterable[Gain]:
    groups: dict[tuple[str, str, str], list[tuple[str, float, float]]] = {}
    for run, method, metric, subject, before, after in rows:
        groups.setdefault((run, method, metric), []).append((subject, before, after))
    for key, members in groups.items():
        subjects, before, after = zip(*members, strict=True)
        effect = mean_interval([b - a for _, a, b in members], subjects)
        yield Gain(*key, sum(before) / len(before), sum(after) / len(after), effect)


def _middle(values: Iterable[float]) -> float:
    """The median."""
    ordered = sorted(values)
    n = len(ordered)
    return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2


def place(axis: str, value: float) -> float:
    """Where a value lies on the axis that lines are fitted on; a class that was never seen has a place of its own."""
    return math.log10(max(value, NEVER)) if axis == "count" else value
