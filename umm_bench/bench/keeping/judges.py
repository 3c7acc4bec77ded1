"""What was measured of the metrics themselves, kept for the report: their trial, and a run by others' rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from figures import Figure
from umm_bench.bench.store import Store


def keep_trial(store: Store, figures: Sequence[Figure], measured: datetime, command: str) -> None:
    """The figures take the place of those kept before, all or none."""
    store.replace_all("trial_figures", [_row(figure, measured, command) for figure in figures])


def _row(figure: Figure, measured: datetime, command: str) -> dict[str, Any]:
    row = figure.as_dict()
    return {name: row[name] for name in row if name != "ok"} | {"measured": measured, "command": command}


def keep_replay(store: Store, run_id: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """The rows, of columns of `replays`, take the place of those kept of the run before, all or none."""
    store.replace_of_run("replays", run_id, rows)
