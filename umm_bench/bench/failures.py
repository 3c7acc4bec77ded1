"""The worst samples of each method, each with its reason and its evidence."""

import json
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

WORST_CASES = 8
"""A method's rows at most: enough to see what goes wrong, few enough to look at."""

GROUND_TRUTH_KINDS = {
    "concept": "concept missing",
    "identity": "identity drift",
    "background": "background ignored",
}
"""Metric that is 0 -> kind of failure, the gravest first."""

LABEL_KINDS = ("missing", "dominance", "swap", "blending", "drift")
"""What can become of one of several subjects, the gravest first: each is a kind of failure."""

SIMILARITY_KINDS = {"dino": "low fidelity", "clip_t": "prompt ignored"}
"""For suites without a ground truth: metric that is lowest -> kind."""


def find_failures(results: Sequence[dict[str, Any]], limit: int = WORST_CASES) -> list[dict[str, Any]]:
    """Rows of `failures` from the rows of `run_results` of one run, ranked: at most `limit` a method of one thing wrong
    with a whole sample, and after them at most as many of what became of one of several subjects.

    With a ground truth, a sample fails by its gravest verdict; among equals the least faithful comes first.
    Without one, a method's lowest scores are shown as such: they are worst cases, not proven failures.
    """
    by_method: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    labels: dict[str, list[dict[str, Any]]] = {}
    for row in results:
        if row["metric"] == "several":
            labels.setdefault(row["sample_key"], []).append(row)
        scores = by_method.setdefault(row["method"], {}).setdefault(row["sample_key"], {})
        # Of several subjects, the one that came out worst.
        if row["metric"] not in scores or row["value"] < scores[row["metric"]]["value"]:
            scores[row["metric"]] = row
    failures = []
    for samples in by_method.values():
        labelled = {key: scores for key, scores in samples.items() if scores.get("several", {"value": 1})["value"] == 0}
        others = {key: scores for key, scores in samples.items() if key not in labelled}
        has_truth = any("identity" in scores for scores in others.values())
        found = list(_by_truth(others) if has_truth else _by_similarity(others))[:limit]
        found += list(_by_label(labelled, labels))[:limit]
        failures += [{**failure, "rank": rank} for rank, failure in enumerate(found, start=1)]
    return failures


def _by_label(
    samples: dict[str, dict[str, dict[str, Any]]], labels: dict[str, list[dict[str, Any]]]
) -> Iterable[dict[str, Any]]:
    """A sample fails by the gravest label of its subjects; the kinds take turns, of each the worst sample first."""
    queues: dict[str, list[tuple[float, str, dict[str, Any]]]] = {kind: [] for kind in LABEL_KINDS}
    for key, scores in samples.items():
        rows = sorted(labels[key], key=lambda row: row["subject"])
        told = {row["subject"]: (row, json.loads(row["metadata_json"])) for row in rows}
        wrong = [(row, evidence) for row, evidence in told.values() if row["value"] == 0]
        kind = min((evidence["label"] for _, evidence in wrong), key=LABEL_KINDS.index)
        margin = min((e["margin"] for _, e in wrong if e["margin"] is not None), default=0.0)
        failure = {
            "sample_key": key,
            "kind": kind,
            "reason": "; ".join(f"{e['label']}: {row['subject']}: {row['explanation']}" for row, e in wrong),
            "evidence_json": _evidence(scores, {"subjects": {name: evidence for name, (_, evidence) in told.items()}}),
        }
        queues[kind].append((margin, key, failure))
    ranked = [sorted(queue, key=lambda entry: entry[:2]) for queue in queues.values()]
    yield from (entry[2] for turn in zip_longest(*ranked) for entry in turn if entry)


def _by_truth(samples: dict[str, dict[str, dict[str, Any]]]) -> Iterable[dict[str, Any]]:
    gravity = list(GROUND_TRUTH_KINDS)
    failed = []
    for key, scores in samples.items():
        verdicts = [metric for metric in gravity if metric in scores and scores[metric]["value"] == 0]
        if verdicts:
            fidelity = scores["dino"]["value"] if "dino" in scores else 0.0
            failed.append((gravity.index(verdicts[0]), -len(verdicts), fidelity, key, verdicts))
    for _, _, _, key, verdicts in sorted(failed):
        scores = samples[key]
        reasons = [f"{GROUND_TRUTH_KINDS[metric]}: {scores[metric]['explanation']}" for metric in verdicts]
        yield {
            "sample_key": key,
            "kind": GROUND_TRUTH_KINDS[verdicts[0]],
            "reason": "; ".join(reasons),
            "evidence_json": _evidence(scores, json.loads(scores[verdicts[0]]["metadata_json"])),
        }


def _by_similarity(samples: dict[str, dict[str, dict[str, Any]]]) -> Iterable[dict[str, Any]]:
    lowest = []
    for metric, kind in SIMILARITY_KINDS.items():
        values = {key: scores[metric]["value"] for key, scores in samples.items() if metric in scores}
        mean = sum(values.values()) / len(values) if values else 0.0
        for place, key in enumerate(sorted(values, key=lambda key: values[key]), start=1):
            reason = f"{metric} {values[key]:.3f}, number {place} from below; the method's mean is {mean:.3f}"
            lowest.append((place, metric, key, kind, reason))
    shown: set[str] = set()
    for _, metric, key, kind, reason in sorted(lowest):
        if key not in shown:
            shown.add(key)
            evidence = json.loads(samples[key][metric]["metadata_json"])
            yield {
                "sample_key": key,
                "kind": kind,
                "reason": reason,
                "evidence_json": _evidence(samples[key], evidence),
            }


def _evidence(scores: dict[str, dict[str, Any]], detail: dict[str, Any]) -> dict[str, Any]:
    return {**detail, "scores": {metric: round(row["value"], 4) for metric, row in scores.items()}}
