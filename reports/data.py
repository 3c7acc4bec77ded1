"""What a report says about one run, read from DuckDB into typed rows. Nothing is recomputed here."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb

from reports.findings.several import SEVERAL_ROWS, Several, read_several
from umm_bench.bench import schema, statistics
from umm_bench.errors import UserError

FIRST_METRICS = ("identity", "dino", "clip_i", "clip_t", "concept", "background")


@dataclass(frozen=True)
class Interval:
    """A mean or an effect; `low` and `high` are its 95 % interval, None where one subject allows none."""

    mean: float
    low: float | None
    high: float | None
    samples: int
    subjects: int

    @property
    def half_width(self) -> float | None:
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclass(frozen=True)
class Cost:
    """`setup_seconds` is a mean over subjects, `seconds_per_image` a median: the first pays for loading."""

    setup_seconds: float | None
    seconds_per_image: float | None
    peak_mb: float | None
    images: int


@dataclass(frozen=True)
class Scale:
    """What a mean lies between: plain SD on the same subjects, and their real images; None where not known."""

    floor: float | None
    ceiling: float | None


@dataclass(frozen=True)
class Sample:
    path: Path
    references: tuple[Path, ...]
    scores: dict[str, float]
    explanations: dict[str, str]
    key: str
    method: str
    subject: str
    class_noun: str
    prompt_id: str
    prompt_kind: str
    prompt: str
    image_index: int
    seed: int


@dataclass(frozen=True)
class Failure:
    kind: str
    reason: str
    evidence: dict[str, Any]
    rank: int
    sample: Sample


@dataclass(frozen=True)
class Comparison:
    """`effect` is the paired mean of `method` minus `reference`."""

    method: str
    reference: str
    metric: str
    effect: Interval


@dataclass(frozen=True)
class SetScore:
    """What all pictures of a method score together, not one by one."""

    method: str
    metric: str
    protocol: str
    subjects: int  # of a case
    value: Interval
    lower_is_better: bool


@dataclass(frozen=True)
class Run:
    run_id: str
    created: datetime
    command: str
    config: dict[str, Any]
    code_version: str
    suite: str
    base: str


@dataclass(frozen=True)
class Report:
    run: Run
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    protocols: dict[str, str]
    summaries: dict[tuple[str, str], Interval]  # (method, metric)
    scales: dict[tuple[str, str], Scale]
    lower_is_better: frozenset[str]
    failed: dict[tuple[str, str], int]  # images that were asked for and have no score, as drawing or scoring failed
    costs: dict[str, Cost]
    comparisons: tuple[Comparison, ...]
    samples: tuple[Sample, ...]
    failures: tuple[Failure, ...]
    several: Several
    sets: tuple[SetScore, ...]
    arguments: dict[str, dict[str, Any]]  # by method, of its first sample

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        return tuple(sorted({sample.prompt_kind for sample in self.samples}))

    @cached_property
    def subjects(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(sample.subject for sample in self.samples))

    def grid(self) -> dict[tuple[str, str], dict[str, list[Sample]]]:
        """(subject, prompt id) -> method -> its images in order. Every method is a key of every row."""
        rows: dict[tuple[str, str], dict[str, list[Sample]]] = {}
        for sample in self.samples:
            row = rows.setdefault((sample.subject, sample.prompt_id), {method: [] for method in self.methods})
            row[sample.method].append(sample)
        return rows


def read_report(store_path: Path, run_id: str) -> Report:
    """What the store knows of a run, but for rarity. UserError when the file or the run is not there."""
    with open_store(store_path) as connection:
        return Reader(connection, store_path.parent, run_id).report()


def latest_run(store_path: Path) -> str:
    """The id of the run that was last executed. UserError when the file or any run is not there."""
    with open_store(store_path) as connection:
        found = connection.execute("select run_id from runs order by executed desc limit 1").fetchone()
    if found is None:
        raise UserError(f"{store_path} holds no run; `python -m umm_bench.run` makes one")
    return found[0]


def open_store(store_path: Path) -> duckdb.DuckDBPyConnection:
    """The database, for queries only. UserError when the file is not there or cannot be read."""
    if not store_path.is_file():
        raise UserError(f"there is no results file {store_path}; `python -m umm_bench.run` makes one")
    try:
        return schema.read(store_path)
    except duckdb.Error as error:
        raise UserError(f"cannot open {store_path}: {str(error).splitlines()[0]}") from error


class Reader:
    """The queries. `folder` is what the paths in the store are relative to."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, folder: Path, run_id: str) -> None:
        self.connection, self.folder, self.run_id = connection, folder, run_id

    def rows(self, query: str) -> list[tuple]:
        """The answer to a query whose one parameter is the run."""
        return self.connection.execute(query, [self.run_id]).fetchall()

    def report(self) -> Report:
        run = self.run()
        samples = self.samples()
        protocols = dict(self.rows("select metric, protocol from run_protocols where run_id = ?"))
        means = self.rows(
            "select method, metric, floor, ceiling, mean, low, high, samples, cases from summaries where run_id = ?"
            " order by subject_count desc"  # of cases of one subject, where there are any
        )
        summaries = {(method, metric): Interval(*interval) for method, metric, _, _, *interval in means}
        lower = self.rows("select metric from run_protocols where run_id = ? and lower_is_better")
        comparisons = [
            Comparison(method, reference, metric, Interval(*effect))
            for method, reference, metric, *effect in self.rows(
                "select method, reference, metric, effect, low, high, pairs, cases from comparisons where run_id = ?"
                " qualify subject_count = min(subject_count) over ()"
            )
        ]
        present = {sample.method for sample in samples}
        methods = in_order(present, run.config.get("methods", ()))
        metrics = in_order({metric for _, metric in summaries}, FIRST_METRICS)
        comparisons.sort(key=lambda row: (metrics.index(row.metric), methods.index(row.method)))
        return Report(
            run=run,
            methods=methods,
            metrics=metrics,
            protocols=protocols,
            summaries=summaries,
            scales={(method, metric): Scale(*scale) for method, metric, *scale in (row[:4] for row in means)},
            lower_is_better=frozenset(metric for (metric,) in lower),
            failed=self.failed(methods, metrics),
            costs=self.costs(),
            comparisons=tuple(comparisons),
            samples=samples,
            failures=self.failures({sample.key: sample for sample in samples}),
            several=read_several(self.rows(SEVERAL_ROWS), self.folder),
            sets=self.sets(methods),
            arguments=self.arguments(),
        )

    def run(self) -> Run:
        found = self.rows(
            "select run_id, created, command, config_json, code_version, suite, base from runs where run_id = ?"
        )
        if not found:
            known = self.connection.execute("select run_id from runs order by executed desc").fetchall()
            names = ", ".join(name for (name,) in known[:8])
            raise UserError(f"there is no run '{self.run_id}'; latest: {names or 'none'}")
        run_id, created, command, config, code_version, suite, base = found[0]
        return Run(run_id, created, command, json.loads(config), code_version, suite, base)

    def samples(self) -> tuple[Sample, ...]:
        scores: dict[str, dict[str, float]] = {}
        explanations: dict[str, dict[str, str]] = {}
        for key, metric, value, explanation in self.rows(
            "select sample_key, metric, avg(value), string_agg(explanation, '; ' order by subject) from run_results"
            " where run_id = ? group by sample_key, metric"
        ):
            scores.setdefault(key, {})[metric] = value
            explanations.setdefault(key, {})[metric] = explanation
        rows = self.rows(
            "select path, references_json, sample_key, method, case_id, class_noun, prompt_id, prompt_kind,"
            " prompt, image_index, seed from run_samples join samples using (sample_key)"
            " join sample_subjects using (sample_key) where run_id = ? and place = 1"
            " order by case_id, prompt_id, method, image_index"
        )
        return tuple(
            Sample(
                self.folder / path,
                tuple(self.folder / reference for reference in json.loads(references or "[]")),
                scores.get(made[0], {}),
                explanations.get(made[0], {}),
                *made,
            )
            for path, references, *made in rows
        )

    def costs(self) -> dict[str, Cost]:
        rows = self.rows(
            """
            with mine as (select samples.* from run_samples join samples using (sample_key) where run_id = ?),
                 used as (select distinct method, setup_key from mine join sample_subjects using (sample_key))
            select mine.method,
                   (select avg(setups.seconds) from used join setups using (setup_key)
                    where used.method = mine.method),
                   median(mine.seconds), max(mine.peak_mb), count(*)
            from mine group by mine.method
            """
        )
        return {row[0]: Cost(*row[1:]) for row in rows}

    def sets(self, methods: Sequence[str]) -> tuple[SetScore, ...]:
        rows = self.rows(
            "select method, metric, protocol, subject_count, value, low, high, samples, cases, lower_is_better"
            " from set_scores where run_id = ? and value is not null order by metric, subject_count"
        )
        found = [
            SetScore(method, metric, protocol, count, Interval(*value), bool(lower))
            for method, metric, protocol, count, *value, lower in rows
            if method in methods
        ]
        return tuple(sorted(found, key=lambda each: (each.metric, each.subjects, methods.index(each.method))))

    def arguments(self) -> dict[str, dict[str, Any]]:
        rows = self.rows(
            "select method, arg_min(config_json, sample_key) from run_samples join samples using (sample_key)"
            " where run_id = ? group by method"
        )
        return {method: json.loads(config or "{}") for method, config in rows}

    def failed(self, methods: Sequence[str], metrics: Sequence[str]) -> dict[tuple[str, str], int]:
        fewest = "(select min(subject_count) from summaries where summaries.run_id = run_samples.run_id)"
        undrawn = dict(
            self.rows(
                "select method, count(*) from run_samples join undrawn using (sample_key)"
                f" where run_id = ? and status = 'failed' and subject_count = {fewest} group by method"
            )
        )
        unscored = {
            (method, metric): number
            for method, metric, number in self.rows(
                "select method, metric, count(*) from run_samples join samples using (sample_key)"
                " join unscored using (sample_key) join run_protocols using (run_id, metric, protocol)"
                f" where run_id = ? and status = 'failed' and subject_count = {fewest} group by all"
            )
        }
        pairs = [(method, metric) for method in methods for metric in metrics]
        return {pair: undrawn.get(pair[0], 0) + unscored.get(pair, 0) for pair in pairs}

    def failures(self, samples: dict[str, Sample]) -> tuple[Failure, ...]:
        rows = self.rows(
            "select kind, reason, evidence_json, rank, sample_key from failures where run_id = ? order by rank"
        )
        return tuple(
            Failure(kind, reason, json.loads(evidence or "{}"), rank, samples[key])
            for kind, reason, evidence, rank, key in rows
            if key in samples
        )


def in_order(names: set[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """Those of `names` that `wanted` lists, in its order, then the rest by name."""
    first = [name for name in wanted if name in names]
    return (*first, *sorted(names.difference(first)))


def extent(interval: Interval | statistics.Interval) -> tuple[float, float]:
    """The lowest and highest value that an interval reaches; a mean without bounds is its own."""
    low = interval.mean if interval.low is None else interval.low
    high = interval.mean if interval.high is None else interval.high
    return low, high
