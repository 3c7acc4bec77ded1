"""Rare subjects: how scores fall with how seldom a class was seen, and with how unusual a subject is of its class.

Two axes, kept apart: the `count` of the class in the training corpus, and the `instance`'s distance from what plain SD
draws when it is given the class noun alone. A line is fitted for each, over the means of subjects: images of one
subject rise and fall together. Cases of one subject only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import log10
from typing import Any

import numpy as np

from umm_bench.bench.plan import Plan
from umm_bench.bench.scoring import FEATURES, drawn_samples
from umm_bench.bench.selection import FLOOR
from umm_bench.bench.store import Answers, Store
from umm_bench.metrics.base import ScoredSample, all_pictures
from umm_bench.metrics.embedding import Encoder, vision_encoder
from umm_bench.metrics.features import kept_in
from umm_bench.suites.base import Suite, strata

METRICS = ("identity", "concept", "dino", "clip_i", "clip_t")
FEWEST = 5
"""Subjects below which no line is fitted."""
NEVER = 0.5
"""What a class that was never seen is counted as: the logarithm needs something."""
BAND = 21


@dataclass(frozen=True)
class Line:
    """A least-squares line over subjects with 95% bounds. x is log10 of a count, or a distance.

    `half` is the x at which the line falls to half of what it is at its better end, with its bounds; None where that
    cannot be said: the slope's interval covers 0, or has the wrong sign. `band` are (x, low, high).
    """

    slope: float
    low: float
    high: float
    intercept: float
    subjects: int
    half: tuple[float, float, float] | None
    band: tuple[tuple[float, float, float], ...]
    note: str = ""


def fit(x: Sequence[float], y: Sequence[float], *, better: int = 1) -> Line | None:
    """The line of y on x, a value a subject each; None where there are fewer than FEWEST, x does not vary, or one
    subject's x is apart from what all others share: nothing says how far that one may be from its line.

    `better` is 1 where a larger x should help (a count), -1 where it should not (a distance). Bounds are t on HC3
    covariances (MacKinnon and White 1985), as subjects scatter more here than there; resampling so few subjects
    covers 0.87 to 0.92 of the time in place of 0.95.
    """
    from scipy.special import stdtrit  # here: a run that is finished fits nothing

    xs, ys = np.asarray(x, float), np.asarray(y, float)
    if len(xs) < FEWEST or np.ptp(xs) == 0:
        return None
    design = np.stack([np.ones_like(xs), xs], axis=1)
    bread = np.linalg.inv(design.T @ design)
    intercept, slope = bread @ design.T @ ys
    leverage = np.einsum("ni,ij,nj->n", design, bread, design)
    if leverage.max() > 1 - 1e-9:
        return None
    residuals = (ys - design @ (intercept, slope)) / (1 - leverage)
    covariance = bread @ (design.T * residuals**2) @ design @ bread
    t = float(stdtrit(len(xs) - 2, 0.975))
    low, high = slope + t * np.sqrt(covariance[1, 1]) * np.array([-1, 1])
    at = np.linspace(xs.min(), xs.max(), BAND)
    points = np.stack([np.ones(BAND), at], axis=1)
    middle, spread = points @ (intercept, slope), t * np.sqrt(np.einsum("ni,ij,nj->n", points, covariance, points))
    band = tuple((float(a), float(m - w), float(m + w)) for a, m, w in zip(at, middle, spread, strict=True))
    half, note = None, ""
    if better * (low if better > 0 else high) <= 0:
        note = "no threshold can be said: the slope may be none"
    else:
        half = _half(intercept, slope, covariance, t, xs.max() if better > 0 else xs.min())
        if not xs.min() <= half[0] <= xs.max():
            note = "half is beyond what was seen: an extrapolation"
    return Line(float(slope), float(low), float(high), float(intercept), len(xs), half, band, note)


def _half(intercept: float, slope: float, covariance: np.ndarray, t: float, end: float) -> tuple[float, float, float]:
    """Where the line has half of its value at `end`, with Fieller's bounds of intercept / slope, whose slope's interval
    is without 0.
    """
    squared = slope**2 - t**2 * covariance[1, 1]
    mixed = intercept * slope - t**2 * covariance[0, 1]
    constant = intercept**2 - t**2 * covariance[0, 0]
    root = np.sqrt(max(0.0, mixed**2 - squared * constant))
    ratios = (intercept / slope, (mixed + root) / squared, (mixed - root) / squared)
    own, low, high = (float(end / 2 - ratio / 2) for ratio in ratios)
    return own, low, high


def instance_distances(samples: Iterable[ScoredSample], encoder: Encoder) -> dict[str, float]:
    """Of each subject that plain SD drew alone by its noun: 1 - cosine of its pictures' mean with those of SD's.

    Both means are of unit features, so that a class that SD draws in many ways is no further from anything for it.
    """
    drawn: dict[str, tuple[ScoredSample, list]] = {}
    for sample in samples:
        if sample.method == FLOOR and len(sample.case.subjects) == 1:
            drawn.setdefault(sample.case.id, (sample, []))[1].append(sample.path)
    distances = {}
    for subject_id, (sample, paths) in drawn.items():
        own = encoder.images(all_pictures(sample.case.subject)).mean(axis=0)
        prior = encoder.images(paths).mean(axis=0)
        distances[subject_id] = float(1 - own @ prior / (np.linalg.norm(own) * np.linalg.norm(prior)))
    return distances


def subject_means(store: Answers, run_id: str) -> dict[tuple[str, str], dict[str, float]]:
    """By (method, metric), each subject's mean over its prompts and images, in cases of its own."""
    rows = store.rows(
        "select method, metric, case_id, avg(value) as mean from run_results"
        " where run_id = ? and subject_count = 1 and list_contains(?, metric) group by all order by all",
        [run_id, list(METRICS)],
    )
    means: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        means.setdefault((row["method"], row["metric"]), {})[row["case_id"]] = row["mean"]
    return means


def corpus_of(suite: Suite) -> str:
    """What the suite's counts are of."""
    return getattr(suite, "corpus", f"{suite.name}, training corpus")


def conclude(plan: Plan, store: Store) -> None:
    """Write the run's `rarity`, `rarity_fits` and `rarity_focus`."""
    suite = plan.selection.suite
    with kept_in(store.folder / FEATURES):
        dino: Any = next((metric for metric in plan.metrics if metric.name == "dino"), None)
        encoder = dino.encoder if dino is not None else vision_encoder("mini")
        distances = instance_distances(drawn_samples(plan, store), encoder)
    told = strata(suite)
    subjects = {case.id: case.subject for case in plan.selection.cases if len(case.subjects) == 1}
    counts = suite.concept_counts()
    rows = [
        {
            "subject": name,
            "class_noun": subject.class_noun,
            "corpus": corpus_of(suite) if counts else None,
            "count": counts.get(subject.class_noun),
            "instance_distance": distances.get(name),
            "stratum": told.get(name),
        }
        for name, subject in subjects.items()
    ]
    write(store, plan.request.run_id, rows)


def write(store: Store, run_id: str, subjects: Sequence[Mapping[str, Any]]) -> None:
    """Fit what the store has of a run against `subjects`, which are rows of `rarity`."""
    means = subject_means(store, run_id)
    store.replace_of_run("rarity", run_id, subjects)
    store.replace_of_run("rarity_fits", run_id, _fits(means, subjects))
    store.replace_of_run("rarity_focus", run_id, _focus(means, subjects))


def _fits(
    means: Mapping[tuple[str, str], Mapping[str, float]], subjects: Sequence[Mapping[str, Any]]
) -> Iterable[dict[str, Any]]:
    places = {
        "count": {s["subject"]: log10(max(s["count"], NEVER)) for s in subjects if s["count"] is not None},
        "instance": {s["subject"]: s["instance_distance"] for s in subjects if s["instance_distance"] is not None},
    }
    for ((method, metric), scores), (axis, x) in product(means.items(), places.items()):
        common = sorted(scores.keys() & x.keys())
        better = 1 if axis == "count" else -1
        line = fit([x[name] for name in common], [scores[name] for name in common], better=better)
        if line is None:
            continue
        half = [10**value if axis == "count" else value for value in line.half] if line.half else [None] * 3
        yield {
            "method": method,
            "metric": metric,
            "axis": axis,
            "slope": line.slope,
            "low": line.low,
            "high": line.high,
            "intercept": line.intercept,
            "subjects": line.subjects,
            "half_at": half[0],
            "half_low": half[1],
            "half_high": half[2],
            "band_json": [list(point) for point in line.band],
            "note": line.note,
        }


def _focus(
    means: Mapping[tuple[str, str], Mapping[str, float]], subjects: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Classes seen less often than half of the run's, whose subjects score below the others' mean: the furthest first.

    By UMM's scores where it ran, else the first method's; by the ground truth where there is one and the frequent
    classes come through, else by DINO.
    """
    methods = list(dict.fromkeys(method for method, _ in means if method != FLOOR)) or [FLOOR]
    method = "umm" if "umm" in methods else methods[0]
    metrics = [name for name in ("identity", "dino", "clip_i") if (method, name) in means]
    lacking = (_lacking(method, metric, means[method, metric], subjects) for metric in metrics)
    return next((rows for rows in lacking if rows), [])


def _lacking(
    method: str, metric: str, means: Mapping[str, float], subjects: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    counts = {s["class_noun"]: s["count"] for s in subjects if s["count"] is not None}
    scores: dict[str, list[float]] = {}
    for s in subjects:
        if s["count"] is not None and s["subject"] in means:
            scores.setdefault(s["class_noun"], []).append(means[s["subject"]])
    middle = float(np.median(list(counts.values()))) if counts else 0.0
    frequent = [value for noun, values in scores.items() if counts[noun] >= middle for value in values]
    if not frequent:
        return []
    aim = float(np.mean(frequent))
    short = {noun: aim - float(np.mean(values)) for noun, values in scores.items() if counts[noun] < middle}
    ranked = sorted((noun for noun, lack in short.items() if lack > 0), key=lambda noun: (-short[noun], noun))
    return [
        {
            "concept": noun,
            "count": counts[noun],
            "reason": f"{method}'s {metric} is {short[noun]:.3f} below the {aim:.3f} of classes seen more often",
            "rank": rank,
        }
        for rank, noun in enumerate(ranked, start=1)
    ]
