"""What is concluded from a run whose scores are complete: means, paired effects, ranks, the worst cases.

Cases of one subject and of several are never averaged together.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from umm_bench.bench import rarity
from umm_bench.bench.asked import untrained
from umm_bench.bench.failures import find_failures
from umm_bench.bench.judging.ranks import rank_methods
from umm_bench.bench.judging.trainings import spread
from umm_bench.bench.plan import Plan
from umm_bench.bench.runner import record
from umm_bench.bench.scoring import cluster_of
from umm_bench.bench.selection import FLOOR
from umm_bench.bench.statistics import PairKey, holm, mean_interval, paired_effect
from umm_bench.bench.store import Store
from umm_bench.metrics.several import LABELS

Values = dict[tuple[str, str, int], dict[PairKey, float]]
"""By (method, metric, subjects of a case)."""


def conclude(plan: Plan, store: Store) -> None:
    """Means, paired effects and the worst cases, by how many subjects the cases have."""
    run_id = plan.request.run_id
    record(plan, store)
    rows = store.rows("select * from run_results where run_id = ?", [run_id])
    values: Values = {}
    clusters = {case.id: cluster_of(case) for case in plan.selection.cases}
    for row in rows:
        pair = (clusters[row["case_id"]], row["prompt_id"], row["seed"], row["subject"])
        for metric, value in _values(row):
            values.setdefault((row["method"], metric, row["subject_count"]), {})[pair] = value
    store.replace_of_run("summaries", run_id, _summaries(values, _ceilings(run_id, store)))
    store.replace_of_run("comparisons", run_id, _corrected(_comparisons(values, plan)))
    lower = {name for metric in plan.metrics for name in getattr(metric, "lower_is_better", ())}
    store.replace_of_run("ranks", run_id, _ranks(values, lower))
    store.replace_of_run("training_seeds", run_id, _trainings(values))
    store.replace_of_run("failures", run_id, find_failures(rows))
    counts = plan.selection.suite.concept_counts()
    corpus = rarity.corpus_of(plan.selection.suite)
    store.upsert("concept_counts", [{"corpus": corpus, "concept": c, "count": n} for c, n in counts.items()])
    rarity.conclude(plan, store)


def _values(row: dict[str, Any]) -> Iterable[tuple[str, float]]:
    """The row's own, and of what became of a subject whether it is this label, by label: their means are rates."""
    yield row["metric"], row["value"]
    if row["metric"] == "several":
        found = json.loads(row["metadata_json"])["label"]
        yield from ((f"several_{label}", float(label == found)) for label in LABELS if label != "right")


def _ceilings(run_id: str, store: Store) -> dict[tuple[str, str], float]:
    """What real pictures score, by (metric, subject), under the protocols of the run."""
    rows = store.rows(
        "select metric, subject, value from ceilings join runs using (suite_hash)"
        " join run_protocols using (run_id, metric, protocol) where run_id = ?",
        [run_id],
    )
    return {(row["metric"], row["subject"]): row["value"] for row in rows}


def _summaries(values: Values, ceilings: dict[tuple[str, str], float]) -> Iterable[dict[str, Any]]:
    for (method, metric, subject_count), scores in values.items():
        floor = values.get((FLOOR, metric, subject_count), {})
        known = [ceilings.get((metric, subject)) for *_, subject in scores]
        interval = mean_interval(list(scores.values()), [pair[0] for pair in scores])
        yield {
            "method": method,
            "metric": metric,
            "subject_count": subject_count,
            "mean": interval.mean,
            "low": interval.low,
            "high": interval.high,
            "samples": interval.samples,
            "cases": interval.clusters,
            "floor": _mean([floor.get(pair) for pair in scores]),
            "ceiling": _mean(known),
        }


def _mean(values: Sequence[float | None]) -> float | None:
    """None where one of them is not known: a mean over others would be of another scale."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _comparisons(values: Values, plan: Plan) -> Iterable[dict[str, Any]]:
    methods = plan.request.method_names
    reference = FLOOR if FLOOR in methods else methods[0]
    for (method, metric, subject_count), scores in values.items():
        theirs = values.get((reference, metric, subject_count), {})
        effect = paired_effect(scores, theirs)
        if method != reference and effect is not None:
            yield {
                "method": method,
                "reference": reference,
                "metric": metric,
                "subject_count": subject_count,
                "effect": effect.mean,
                "low": effect.low,
                "high": effect.high,
                "pairs": effect.samples,
                "cases": effect.clusters,
                "p": effect.p,
            }


def _corrected(comparisons: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """With Holm's p, the family being all that the run compares with as many subjects."""
    rows = list(comparisons)
    for count in {row["subject_count"] for row in rows}:
        family = [row for row in rows if row["subject_count"] == count]
        for row, p in zip(family, holm([row["p"] for row in family]), strict=True):
            row["p_holm"] = p
    return rows


def _ranks(values: Values, lower: set[str]) -> Iterable[dict[str, Any]]:
    scores: dict[tuple[str, int], dict[str, dict[PairKey, float]]] = {}
    for (method, metric, count), of in values.items():
        scores.setdefault((metric, count), {})[method] = of
    for (metric, count), by_method in scores.items():
        if not metric.startswith("several_"):  # parts of `several`, which is ranked
            for row in rank_methods(by_method, metric in lower):
                yield {**asdict(row), "metric": metric, "subject_count": count}


def _trainings(values: Values) -> Iterable[dict[str, Any]]:
    """Of each method that was trained with several seeds."""
    groups: dict[tuple[str, str, int], list[dict[PairKey, float]]] = {}
    for (method, metric, count), scores in values.items():
        if untrained(method) != method:
            groups.setdefault((untrained(method), metric, count), []).append(scores)
    for (method, metric, count), trainings in groups.items():
        if found := spread(trainings):
            yield {"method": method, "metric": metric, "subject_count": count, **asdict(found)}
