"""The DuckDB file of a reports folder: everything that was made, from what, and how it scored.

Writing a row twice is the same as writing it once. `results` is the view for questions by hand:

    select method, avg(value) from results where metric = 'dino' group by method

DuckDB lets nobody look into a file that another process writes. So a run writes to a file of its own beside, and now
and then, and at its end, puts a whole copy in the place that readers know: they never wait, nor make it wait.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
from filelock import FileLock, Timeout

from atomic import whole_file
from umm_bench.bench import schema
from umm_bench.errors import UserError

DATABASE_NAME = "umm_bench.duckdb"
PUBLISH_SECONDS = 5.0
"""Between two copies for readers, at the least; and so that copying takes at most a twentieth of the time."""

CONCLUSIONS = (
    *("summaries", "comparisons", "ranks", "training_seeds", "failures", "set_scores"),
    *("rarity", "rarity_fits", "rarity_focus", "replays"),
)
"""Tables of what was concluded from a run's samples and scores."""


class Answers:
    """A database that is open for queries. `folder` is what the paths in it are relative to."""

    def __init__(self, folder: Path, connection: duckdb.DuckDBPyConnection) -> None:
        self.folder, self.path, self.connection = folder, folder / DATABASE_NAME, connection

    def __exit__(self, *exception: object) -> None:
        self.connection.close()

    def rows(self, query: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The answer to `query`, one dict a row."""
        cursor = self.connection.execute(query, list(parameters))
        names = [column[0] for column in cursor.description or []]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def run(self, run_id: str) -> dict[str, Any] | None:
        """The row of a run, or None."""
        found = self.rows("select * from runs where run_id = ?", [run_id])
        return found[0] if found else None

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

    def unscored(self, keys: Sequence[str]) -> set[str]:
        """Those of `keys` that some metric has failed to score."""
        query = "select distinct sample_key from unscored where status = 'failed' and list_contains(?, sample_key)"
        return {row["sample_key"] for row in self.rows(query, [list(keys)])}

    def scored_samples(self, keys: Sequence[str], metric: str, protocol: str) -> set[str]:
        """Those of `keys` that have a score under this very protocol."""
        rows = self.rows(
            "select sample_key from scores where metric = ? and protocol = ? and list_contains(?, sample_key)",
            [metric, protocol, list(keys)],
        )
        return {row["sample_key"] for row in rows}


class OpenAnswers(Answers):
    """`with OpenAnswers(folder) as answers`: also while a run is being written. UserError when it is damaged or of a
    later version, and when there is none, unless it is `perhaps` empty.
    """

    def __init__(self, folder: Path, perhaps: bool = False) -> None:
        path = folder / DATABASE_NAME
        if path.is_file():
            super().__init__(folder, schema.read(path))
        elif perhaps:
            super().__init__(folder, duckdb.connect())
            schema.create(self.connection)
        else:
            raise UserError(f"no run is in {folder}; `python -m umm_bench.run` makes one")

    def __enter__(self) -> OpenAnswers:
        return self


class Store(Answers):
    """An open database. One process writes at a time; DuckDB's log keeps finished statements over a kill.

    `folder` holds `umm_bench.duckdb`, `samples/` and `setups/`. A database of an earlier version becomes one of this.
    `UserError` when another process writes it, when it is damaged, or of a later version.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / DATABASE_NAME
        folder.mkdir(parents=True, exist_ok=True)
        # DuckDB's own lock goes with the file, and the file with each copy that takes its place.
        self._lock = FileLock(f"{path}.lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise UserError(f"cannot open {path}: another run writes it; wait, or take another --output") from error
        self._working = path.with_name(f"{DATABASE_NAME}.writing")
        self._execution: tuple[str, datetime, float] | None = None
        try:
            self._take_up(path)
            super().__init__(folder, schema.connect(self._working))
            self.publish()
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        """What was written is for readers, whatever ended the block; it stays where it is if the disk is full."""
        try:
            self._note_seconds()
            self.connection.execute("checkpoint")
            self.connection.close()
            os.replace(self._working, self.path)
        except (duckdb.Error, OSError):
            if exception[0] is None:
                raise
        finally:
            self._lock.release()

    def _take_up(self, path: Path) -> None:
        """What a killed process left is further than what readers have; else theirs is what there is."""
        if self._working.exists() or not path.exists():
            return
        schema.read(path).close()  # named as the user knows it, where something is wrong
        if path.with_name(f"{path.name}.wal").exists():  # from a shell that was killed
            duckdb.connect(str(path)).close()
        with whole_file(self._working) as partial:
            shutil.copyfile(path, partial)

    def publish(self) -> None:
        """What is written so far is what readers find."""
        began = time.monotonic()
        self._note_seconds()
        self.connection.execute("checkpoint")
        with whole_file(self.path) as partial:
            shutil.copyfile(self._working, partial)
        now = time.monotonic()
        self._publish_at = now + max(PUBLISH_SECONDS, 20 * (now - began))

    def _publish_if_due(self) -> None:
        if time.monotonic() >= self._publish_at:
            self.publish()

    def upsert(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Insert rows or replace those with the same primary key, all or none. `*_json` is encoded."""
        with _Transaction(self.connection):
            self._insert(table, list(rows))
        self._publish_if_due()

    def replace_of_run(self, table: str, run_id: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """What `table` says of one run becomes `rows` (without their `run_id`), all or none."""
        with _Transaction(self.connection):
            self.connection.execute(f"delete from {table} where run_id = ?", [run_id])
            self._insert(table, [{"run_id": run_id, **row} for row in rows])

    def replace_all(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """What `table` says becomes `rows`, all or none."""
        with _Transaction(self.connection):
            self.connection.execute(f"delete from {table}")
            self._insert(table, rows)

    def _insert(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            names = list(rows[0])
            marks = ", ".join("?" for _ in names)
            statement = f"insert or replace into {table} ({', '.join(names)}) values ({marks})"
            self.connection.executemany(statement, [[_encode(n, row[n]) for n in names] for row in rows])

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

    def begin_execution(self, run_id: str, now: datetime, **columns: Any) -> None:
        """The command runs: its seconds are counted from here."""
        self._execution = (run_id, now, time.monotonic())
        self.upsert("executions", [{"run_id": run_id, "started": now, "seconds": 0.0, "ended": None, **columns}])
        self.publish()

    def note_work(self, images: int, scores: int, scoring_seconds: float) -> None:
        """What the command has made."""
        if self._execution:
            self.connection.execute(
                "update executions set images = ?, scores = ?, scoring_seconds = ? where run_id = ? and started = ?",
                [images, scores, scoring_seconds, *self._execution[:2]],
            )

    def end_execution(self, ended: str) -> None:
        """How it came to its end: 'done', 'stopped', 'failed: why'."""
        self._note_seconds()
        if self._execution:
            where = "where run_id = ? and started = ?"
            self.connection.execute(f"update executions set ended = ? {where}", [ended, *self._execution[:2]])
            self._execution = None

    def _note_seconds(self) -> None:
        if self._execution:
            run_id, started, began = self._execution
            statement = "update executions set seconds = ? where run_id = ? and started = ?"
            self.connection.execute(statement, [time.monotonic() - began, run_id, started])

    def finish_run(self, run_id: str, inputs: str) -> None:
        """The run has all its rows, made from `inputs`."""
        self.connection.execute("update runs set finished_inputs = ? where run_id = ?", [inputs, run_id])

    def mark_latest(self, run_id: str, now: datetime) -> None:
        """`results` shows this run until another is executed."""
        self.connection.execute("update runs set executed = ? where run_id = ?", [now, run_id])

    def replace_undrawn(self, keys: Sequence[str], rows: Sequence[Mapping[str, Any]], stage: str = "") -> None:
        """What is known of why those of `keys` are not drawn (of one `stage`, if given) becomes `rows`, all or none."""
        with _Transaction(self.connection):
            self.connection.execute(
                "delete from undrawn where list_contains(?, sample_key) and (? = '' or stage = ?)",
                [list(keys), stage, stage],
            )
            self._insert("undrawn", rows)

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
