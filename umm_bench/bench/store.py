"""The DuckDB file of a reports folder: everything that was made, from what, and how it scored.

Writing a row twice is the same as writing it once. `results` is the view for questions by hand:

    select method, avg(value) from results where metric = 'dino' group by method
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from umm_bench.bench import schema

DATABASE_NAME = "umm_bench.duckdb"


CONCLUSIONS = ("summaries", "comparisons", "failures", "set_scores", "rarity", "rarity_fits", "rarity_focus")
"""Tables of what was concluded from a run's samples and scores."""


class Store:
    """An open database. One process writes at a time; DuckDB's log keeps finished statements over a kill.

    `folder` holds `umm_bench.duckdb`, `samples/` and `setups/`. A database of an earlier version becomes one of this.
    `UserError` when another process has it open, when it is damaged, or of a later version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / DATABASE_NAME
        folder.mkdir(parents=True, exist_ok=True)
        self.connection = schema.connect(self.path)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.connection.close()

    def rows(self, query: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The answer to `query`, one dict a row."""
        cursor = self.connection.execute(query, list(parameters))
        names = [column[0] for column in cursor.description or []]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def upsert(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Insert rows or replace those with the same primary key, all or none. `*_json` is encoded."""
        with _Transaction(self.connection):
            self._insert(table, list(rows))

    def replace_of_run(self, table: str, run_id: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """What `table` says of one run becomes `rows` (without their `run_id`), all or none."""
        with _Transaction(self.connection):
            self.connection.execute(f"delete from {table} where run_id = ?", [run_id])
            self._insert(table, [{"run_id": run_id, **row} for row in rows])

    def _insert(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            names = list(rows[0])
            marks = ", ".join("?" for _ in names)
            statement = f"insert or replace into {table} ({', '.join(names)}) values ({marks})"
            self.connection.executemany(statement, [[_encode(n, row[n]) for n in names] for row in rows])

    def run(self, run_id: str) -> dict[str, Any] | None:
        """The row of a run, or None."""
        found = self.rows("select * from runs where run_id = ?", [run_id])
        return found[0] if found else None

    def begin_run(self, run_id: str, now: datetime, **columns: Any) -> None:
        """The run is unfinished from here on, and the latest; the time of its first execution stays.

        What was concluded from its samples and scores is forgotten: they may change.
        """
        before = self.run(run_id)
        created = before["created"] if before else now
        row = {"run_id": run_id, "created": created, "executed": now, **columns, "finished_inputs": None}
        with _Transaction(self.connection):
            for table in CONCLUSIONS:
                self.connection.execute(f"delete from {table} where run_id = ?", [run_id])
            self._insert("runs", [row])

    def finish_run(self, run_id: str, inputs: str) -> None:
        """The run has all its rows, made from `inputs`."""
        self.connection.execute("update runs set finished_inputs = ? where run_id = ?", [inputs, run_id])

    def mark_latest(self, run_id: str, now: datetime) -> None:
        """`results` shows this run until another is executed."""
        self.connection.execute("update runs set executed = ? where run_id = ?", [now, run_id])

    def finished_samples(self, keys: Sequence[str]) -> set[str]:
        """Those of `keys` that have both their row and their image."""
        if not keys:
            return set()
        rows = self.rows("select sample_key, path from samples where list_contains(?, sample_key)", [list(keys)])
        return {row["sample_key"] for row in rows if (self.folder / row["path"]).is_file()}

    def undrawn(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The rows of those of `keys` that were skipped or failed, by key."""
        rows = self.rows("select * from undrawn where list_contains(?, sample_key)", [list(keys)])
        return {row["sample_key"]: row for row in rows}

    def replace_undrawn(self, keys: Sequence[str], rows: Sequence[Mapping[str, Any]], stage: str = "") -> None:
        """What is known of why those of `keys` are not drawn (of one `stage`, if given) becomes `rows`, all or none."""
        with _Transaction(self.connection):
            self.connection.execute(
                "delete from undrawn where list_contains(?, sample_key) and (? = '' or stage = ?)",
                [list(keys), stage, stage],
            )
            self._insert("undrawn", rows)

    def unscored(self, keys: Sequence[str]) -> set[str]:
        """Those of `keys` that some metric has failed to score."""
        query = "select distinct sample_key from unscored where status = 'failed' and list_contains(?, sample_key)"
        return {row["sample_key"] for row in self.rows(query, [list(keys)])}

    def replace_unscored(
        self, keys: Sequence[str], metric: str, protocol: str, rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """What is known of why those of `keys` have no score of a metric becomes `rows`, all or none."""
        with _Transaction(self.connection):
            self.connection.execute(
                "delete from unscored where metric = ? and protocol = ? and list_contains(?, sample_key)",
                [metric, protocol, list(keys)],
            )
            self._insert("unscored", [{"metric": metric, "protocol": protocol, **row} for row in rows])

    def forget_scores(self, keys: Sequence[str]) -> None:
        """No sample of `keys` has a score any more, under any protocol, and no run with one of them is finished."""
        with _Transaction(self.connection):
            self.connection.execute("delete from scores where list_contains(?, sample_key)", [list(keys)])
            self.connection.execute(
                "update runs set finished_inputs = null where run_id in"
                " (select run_id from run_samples where list_contains(?, sample_key))",
                [list(keys)],
            )

    def set_references(
        self, run_id: str, subject: str, references: Sequence[str], held_out: Sequence[str] = ()
    ) -> None:
        """The paths of a subject's pictures, in all samples of the run."""
        self.connection.execute(
            "update sample_subjects set references_json = ?, held_out_json = ? where subject = ?"
            " and sample_key in (select sample_key from run_samples where run_id = ?)",
            [_encode("references_json", references), _encode("held_out_json", held_out), subject, run_id],
        )

    def scored_samples(self, keys: Sequence[str], metric: str, protocol: str) -> set[str]:
        """Those of `keys` that have a score under this very protocol."""
        rows = self.rows(
            "select sample_key from scores where metric = ? and protocol = ? and list_contains(?, sample_key)",
            [metric, protocol, list(keys)],
        )
        return {row["sample_key"] for row in rows}


class _Transaction:
    """All statements of the block, or none."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection

    def __enter__(self) -> None:
        self.connection.begin()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.connection.commit()
        else:
            self.connection.rollback()


def _encode(name: str, value: Any) -> Any:
    return json.dumps(value, sort_keys=True, default=str) if name.endswith("_json") else value
