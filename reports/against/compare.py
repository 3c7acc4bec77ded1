"""Two runs of one store: what moved between them, what is noise, and the pictures that changed most."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from reports.data import Report, Sample
from reports.findings.claims import FEWEST_CASES
from umm_bench.bench.statistics import Interval, paired_effect
from umm_bench.errors import UserError

PICTURES = 8  # of a method, those with the largest change
Key = tuple[str, str, int]
"""Subject or case, prompt, image index: what two runs can have in common."""


@dataclass(frozen=True)
class Change:
    """The later run's mean minus the earlier's, over the pictures that both scored under one protocol."""

    method: str
    metric: str
    before: float
    after: float
    effect: Interval
    alike: bool
    """Whether no picture's score has changed."""

    @property
    def verdict(self) -> str:
        low, high = self.effect.low, self.effect.high
        if self.alike:
            return "the same"
        if low is None or high is None or self.effect.clusters < FEWEST_CASES:
            return "too few subjects"
        return "higher" if low > 0 else "lower" if high < 0 else "noise"


@dataclass(frozen=True)
class Pair:
    before: Sample
    after: Sample
    change: float


@dataclass(frozen=True)
class Comparison:
    """`other_protocol` are metrics that both runs have under protocols that do not compare; `same` pictures are one and
    the same sample in both."""

    changes: tuple[Change, ...]
    pairs: dict[str, tuple[str, list[Pair]]]  # method -> the metric, and the pictures that it changed most
    methods: tuple[str, ...]
    shared: int
    same: int
    other_protocol: tuple[str, ...]


def compare(before: Report, after: Report) -> Comparison:
    """UserError where the runs have no picture of a method, a case and a prompt in common."""
    methods = tuple(method for method in after.methods if method in before.methods)
    old, new = ({method: _by_key(report.samples, method) for method in methods} for report in (before, after))
    shared = {method: sorted(old[method].keys() & new[method].keys()) for method in methods}
    if not any(shared.values()):
        raise UserError(f"run '{before.run.run_id}' and '{after.run.run_id}' drew no same case by the same method")
    common = [metric for metric in after.metrics if metric in before.metrics]
    metrics = [metric for metric in common if before.protocols.get(metric) == after.protocols.get(metric)]
    changes, pairs = [], {}
    for method in methods:
        both = [(old[method][key], new[method][key], key) for key in shared[method]]
        own = [change for metric in metrics if (change := _change(method, metric, both)) is not None]
        changes += own
        if own:
            metric = next((c.metric for name in ("dino", "identity") for c in own if c.metric == name), own[0].metric)
            pairs[method] = metric, list(_largest(metric, both))
    return Comparison(
        tuple(sorted(changes, key=lambda change: metrics.index(change.metric))),
        pairs,
        methods,
        sum(map(len, shared.values())),
        sum(old[method][key].key == new[method][key].key for method in methods for key in shared[method]),
        tuple(metric for metric in common if metric not in metrics),
    )


def _by_key(samples: Iterable[Sample], method: str) -> dict[Key, Sample]:
    return {(s.subject, s.prompt_id, s.image_index): s for s in samples if s.method == method}


def _change(method: str, metric: str, both: list[tuple[Sample, Sample, Key]]) -> Change | None:
    scored = [
        (a.scores[metric], b.scores[metric], key) for a, b, key in both if metric in a.scores and metric in b.scores
    ]
    effect = paired_effect({key: after for _, after, key in scored}, {key: before for before, _, key in scored})
    if effect is None:
        return None
    before, after = (sum(values) / len(scored) for values in list(zip(*scored, strict=True))[:2])
    return Change(method, metric, before, after, effect, all(was == now for was, now, _ in scored))


def _largest(metric: str, both: list[tuple[Sample, Sample, Key]]) -> Iterable[Pair]:
    """Of pictures that are not the same, the largest change first."""
    changed = [
        Pair(a, b, b.scores[metric] - a.scores[metric])
        for a, b, _ in both
        if a.key != b.key and metric in a.scores and metric in b.scores
    ]
    return sorted(changed, key=lambda pair: (-abs(pair.change), pair.after.key))[:PICTURES]


def compare_page(before: Report, after: Report) -> dict[str, Any]:
    """What the page is made of."""
    config = [{**report.run.config, "code version": report.run.code_version} for report in (before, after)]
    names = sorted({name for each in config for name in each} - {"settings", "asked"})
    differing = [(n, *(each.get(n) for each in config)) for n in names if config[0].get(n) != config[1].get(n)]
    return {"before": before.run, "found": compare(before, after), "differing": differing}
