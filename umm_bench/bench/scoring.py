"""Scores of what is drawn: of each sample, of each method's set of them, and of the subjects' own pictures.

What cannot be scored is in the store with its reason, and does not end a run.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

from umm_bench.bench.plan import MethodPlan, Plan
from umm_bench.bench.runner import Event, batches, reason_of
from umm_bench.bench.statistics import Cluster, jackknife_interval
from umm_bench.bench.store import Store
from umm_bench.errors import UserError
from umm_bench.methods import Case
from umm_bench.metrics.base import Metric, Score, ScoredSample, Unusable, is_for
from umm_bench.metrics.features import kept_in
from umm_bench.suites.degrade import shown_to_methods

logger = logging.getLogger(__name__)

SCORING_BATCH = 32
FEATURES = "features"
"""The folder beside the database where encoders keep what they have computed of pictures."""


def drawn_samples(plan: Plan, store: Store) -> list[ScoredSample]:
    """All images of the run that exist, for metrics, in the plan's order."""
    return [sample for method in plan.methods for sample in _drawn_by(method, plan, store)]


def _drawn_by(method: MethodPlan, plan: Plan, store: Store) -> Iterator[ScoredSample]:
    drawn = store.finished_samples([sample.key for sample in method.samples])
    floor = _floor(plan, store)
    earlier: dict[tuple[str, str], tuple[Path, ...]] = {}
    shown: dict[str, tuple[tuple[Path, ...], ...]] = {}
    for sample in method.samples:
        if sample.key not in drawn:
            continue
        case, asked, path = sample.case, (sample.case.id, sample.prompt.id), _path(store, sample.key)
        if plan.request.degrade and not method.finished and case.id not in shown:
            worse = shown_to_methods(case, plan.request.degrade, store.folder / "degraded")
            shown[case.id] = tuple(subject.references for subject in worse.subjects)
        yield ScoredSample(
            key=sample.key,
            path=path,
            case=case,
            prompt=sample.prompt,
            seed=sample.seed,
            method=method.name,
            method_prompt=sample.prompt.text(method.words(case)),
            earlier=earlier.get(asked, ()),
            floor=floor.get((*asked, sample.seed)),
            shown=shown.get(case.id, ()),
        )
        earlier[asked] = (*earlier.get(asked, ()), path)


def _floor(plan: Plan, store: Store) -> dict[tuple[str, str, int], Path]:
    """Plain SD's images, by case, prompt and seed."""
    samples = [sample for method in plan.methods if method.name == "sd" for sample in method.samples]
    drawn = store.finished_samples([sample.key for sample in samples])
    return {(s.case.id, s.prompt.id, s.seed): _path(store, s.key) for s in samples if s.key in drawn}


def _path(store: Store, key: str) -> Path:
    return store.folder / "samples" / f"{key}.png"


def unscored(plan: Plan, store: Store) -> dict[str, list[ScoredSample]]:
    """By metric, the samples that it is for and that have no score under its protocol."""
    samples = drawn_samples(plan, store)
    missing = {}
    for metric in _of_samples(plan):
        scored = store.scored_samples(plan.sample_keys, metric.name, metric.protocol)
        lacking = [s for s in samples if s.key not in scored and is_for(metric, s.case)]
        missing[metric.name] = [s for s in lacking if _why_not(metric, s) is None]
    return missing


def score(plan: Plan, store: Store) -> Iterator[Event]:
    """Write all missing scores, in batches, metric by metric."""
    missing, done = unscored(plan, store), 0
    with kept_in(store.folder / FEATURES):
        for metric in _of_samples(plan):
            for batch in batches(missing[metric.name], SCORING_BATCH):
                yield Event(done, metric.name)
                scores, failed = _scores(metric, batch)
                store.upsert("scores", [_score_row(asdict(row)) for row in scores])
                reasons = [_reason(key, "failed", reason) for key, reason in failed.items()]
                keys = [sample.key for sample in batch]
                store.replace_unscored(keys, metric.name, metric.protocol, reasons)
                done += len(batch)
                yield Event(done, metric.name)


def score_wholes(plan: Plan, store: Store) -> None:
    """Write what is not of one sample: scores of sets, ceilings, and which samples are not what a metric is for."""
    samples = drawn_samples(plan, store)
    for metric in _of_samples(plan):
        reasons = {sample.key: _why_not(metric, sample) for sample in samples if is_for(metric, sample.case)}
        rows = [_reason(key, "skipped", reason) for key, reason in reasons.items() if reason]
        store.replace_unscored([row["sample_key"] for row in rows], metric.name, metric.protocol, rows)
    with kept_in(store.folder / FEATURES):
        store.upsert("ceilings", _ceilings(plan))
        store.replace_of_run("set_scores", plan.request.run_id, _set_scores(plan, samples))


def _scores(metric: Metric, batch: Sequence[ScoredSample]) -> tuple[list[Score], dict[str, str]]:
    """The rows, and of those samples that cannot be scored the reason, by key."""
    try:
        rows = metric.score(batch)
    except Unusable:
        raise
    except Exception as error:
        if len(batch) == 1:
            _log(metric, str(batch[0].path), error)
            return [], {batch[0].key: reason_of(error)}
        parts = [_scores(metric, [sample]) for sample in batch]
        return [row for rows, _ in parts for row in rows], {k: why for _, failed in parts for k, why in failed.items()}
    failed = {row.sample_key: f"{row.metric} is {row.value}" for row in rows if not isfinite(row.value)}
    return [row for row in rows if row.sample_key not in failed], failed


def _ceilings(plan: Plan) -> list[dict[str, Any]]:
    """Of each subject of the run, by each metric that has one. A picture that cannot be read costs its subject's."""
    selection, rows = plan.selection, []
    metrics: list[Any] = [metric for metric in plan.metrics if hasattr(metric, "ceiling")]
    for metric in metrics:
        for subject in selection.subjects:
            try:
                ceiling = metric.ceiling(subject)
            except Unusable:
                raise
            except Exception as error:
                _log(metric, f"the ceiling of {subject.id}", error)
                continue
            if ceiling is not None:
                rows.append(
                    {
                        "suite": selection.suite.name,
                        "suite_hash": selection.fingerprint,
                        "subject": subject.id,
                        "metric": metric.name,
                        "protocol": metric.protocol,
                        "value": ceiling.value,
                        "pairs": ceiling.pairs,
                    }
                )
    return rows


def _set_scores(plan: Plan, samples: Sequence[ScoredSample]) -> list[dict[str, Any]]:
    """Of each method, of cases of one subject and of several by themselves."""
    groups: dict[tuple[str, int], list[ScoredSample]] = {}
    for sample in samples:
        groups.setdefault((sample.method, len(sample.case.subjects)), []).append(sample)
    rows = []
    metrics: list[Any] = [metric for metric in plan.metrics if hasattr(metric, "score_set")]
    for metric in metrics:
        for (method, count), group in groups.items():
            try:
                usable = metric.usable(group)
                cases = [cluster_of(sample.case) for sample in usable]
                interval = jackknife_interval(usable, cases, metric.score_set)
            except Unusable:
                raise
            except Exception as error:
                _log(metric, f"the set of {method}", error)
                continue
            if interval is not None:
                rows.append(
                    {
                        "method": method,
                        "metric": metric.name,
                        "protocol": metric.protocol,
                        "subject_count": count,
                        "value": interval.mean,
                        "low": interval.low,
                        "high": interval.high,
                        "samples": interval.samples,
                        "cases": interval.clusters,
                        "lower_is_better": metric.name in getattr(metric, "lower_is_better", ()),
                    }
                )
    return rows


def cluster_of(case: Case) -> Cluster:
    """What its scores belong to: the subject, or all of them."""
    return case.id if len(case.subjects) == 1 else tuple(subject.id for subject in case.subjects)


def _log(metric: Any, what: str, error: Exception) -> None:
    # As with methods: what is no mistake of the user's may be a bug, which somebody will want to find.
    known = isinstance(error, UserError)
    logger.warning("%s, %s: %s", metric.name, what, error, exc_info=None if known else error)


def _of_samples(plan: Plan) -> list[Any]:
    return [metric for metric in plan.metrics if hasattr(metric, "score")]


def _why_not(metric: Any, sample: ScoredSample) -> str | None:
    return metric.why_not(sample) if hasattr(metric, "why_not") else None


def _reason(key: str, status: str, reason: str) -> dict[str, Any]:
    return {"sample_key": key, "status": status, "reason": reason}


def _score_row(row: dict[str, Any]) -> dict[str, Any]:
    return {"metadata_json" if name == "metadata" else name: value for name, value in row.items()}
