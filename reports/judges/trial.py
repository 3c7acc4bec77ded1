"""Metrics on trial: what `validate_metrics --store` found of each metric against pictures whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb

from figures import Figure
from umm_bench.bench.failures import LABEL_KINDS

LABELS = ("right", *LABEL_KINDS)
TESTS = {
    "AUC": "tells the subject from what is not it",
    "rank": "orders by how much of the subject is there",
    "impostor": "itself above an impostor on the reference's own background",
    "copied": "itself in the scene asked for above a copy of the reference",
    "lost": "itself above its scene without it",
    "swapped": "two subjects above the same two with looks changed over",
}
"""Columns of the table, in words; all but the rank correlation are chances, and one half is a coin's."""
LABEL, SELF = "validate.failure_label", "validate.self"


@dataclass(frozen=True)
class Trial:
    """`metrics`: metric -> test -> its figure. `labels`: of what -> the share of right labels of several subjects.
    `confusion`: (truth, label) -> subjects.
    """

    metrics: dict[str, dict[str, Figure]]
    labels: dict[str, Figure]
    confusion: dict[tuple[str, str], int]
    measured: datetime
    command: str


def read_trial(connection: duckdb.DuckDBPyConnection) -> Trial | None:
    """None where the store has none."""
    rows = connection.execute(
        "select name, value, unit, higher_is_better, bar, note, measured, command from trial_figures"
    ).fetchall()
    if not rows:
        return None
    metrics: dict[str, dict[str, Figure]] = {}
    labels, confusion = {}, {}
    for name, *about in rows:
        figure = Figure(name, *about[:5])
        if name.startswith(f"{LABEL}.confusion."):
            truth, label = name.split(".")[-2:]
            confusion[truth, label] = round(figure.value)
        elif name.startswith(f"{LABEL}."):
            labels[name.removeprefix(f"{LABEL}.")] = figure
        else:
            test, metric = name.removeprefix(f"{SELF}.").removeprefix("validate.").split(".", 1)
            metrics.setdefault(metric, {})[test] = figure
    return Trial(metrics, labels, confusion, *rows[0][-2:])


def trial_page(connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """What the page is made of."""
    return {"trial": read_trial(connection), "tests": TESTS, "labels": LABELS}
