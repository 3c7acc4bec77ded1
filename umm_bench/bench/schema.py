"""The tables of the DuckDB file, their version, and how a file of an earlier version becomes one of this."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from umm_bench.bench.keeping import migrations
from umm_bench.errors import UserError

VERSION = 4

SCHEMA = """
create table if not exists schema_version (version integer);
create table if not exists runs (
    run_id text primary key, created timestamp, command text, config_json json, code_version text,
    suite text, suite_hash text, base text,
    executed timestamp,            -- when this command last ran
    watched_json json,             -- local files and weights that it read beside the base
    finished_inputs text           -- digest of all that the last complete execution depended on; else null
);
create table if not exists executions (
    run_id text, started timestamp,
    seconds double,                -- of wall time so far: of one that was killed, up to its last sign of life
    ended text,                    -- 'done', 'stopped' (Ctrl-C), 'failed: why'; null while it runs, or was killed
    command text,
    commit text,                   -- of the project's working copy; null where it was installed from a wheel
    dirty boolean,                 -- whether its files differed from the commit
    versions_json json,            -- of Python and of the libraries that a picture or a score depends on
    images integer, scores integer, -- that it has made; of each metric, a score an image
    scoring_seconds double,
    machine_json json,             -- system, processor, cores, memory, GPUs
    options_json json,             -- of the command, such as change no picture: batch size, workers, device
    primary key (run_id, started)
);
create table if not exists setups (
    setup_key text primary key, method text,
    case_id text,                  -- the subject's id, or those of the set that it was made for, joined with +
    config_json json, seconds double, peak_mb double, steps bigint, trained_parameters bigint,
    bytes bigint,                  -- of the files it left
    path text,                     -- relative to the reports folder; null when nothing was saved
    device text                    -- that it was made on
);
create table if not exists samples (
    sample_key text primary key, method text, config_json json, base text, suite text,
    case_id text, subject_count integer,
    prompt_id text, prompt_kind text,
    prompt text,                   -- with class nouns
    method_prompt text,            -- with the method's own words
    image_index integer, seed bigint,
    path text,                     -- relative to the reports folder
    seconds double, peak_mb double, code_version text,
    content text,                  -- digest of the pixels: the same picture has the same one
    bytes bigint,                  -- of its file
    device text                    -- that it was drawn on
);
create table if not exists sample_subjects (
    sample_key text,
    place integer,                 -- in the case, from 1
    subject text, class_noun text, kind text,
    references_json json,          -- what the method saw; scored against
    held_out_json json,            -- only scored against
    setup_key text,
    primary key (sample_key, place)
);
create table if not exists undrawn (
    sample_key text primary key, method text, case_id text, subject_count integer, prompt_id text, prompt_kind text,
    prompt text, image_index integer, seed bigint,
    status text,                   -- 'skipped': not what the method can do; 'failed'
    stage text,                    -- 'plan', 'setup', 'generate': where it ended
    reason text
);
create table if not exists run_samples (
    run_id text, sample_key text,
    floor boolean default false,   -- drawn by plain SD as the floor of the scale, not as a method of the run
    primary key (run_id, sample_key)
);
create table if not exists scores (
    sample_key text, metric text, protocol text,
    subject text default '',       -- which of the sample's subjects it is about; '' for the whole image
    value double, explanation text, metadata_json json,
    primary key (sample_key, metric, protocol, subject)
);
create table if not exists run_protocols (
    run_id text, metric text, protocol text,
    lower_is_better boolean default false,
    primary key (run_id, metric)
);
create table if not exists unscored (
    sample_key text, metric text, protocol text,
    status text,                   -- 'skipped': not what the metric is for; 'failed'
    reason text,
    primary key (sample_key, metric, protocol)
);
create table if not exists ceilings (
    suite text, suite_hash text, subject text, metric text, protocol text,
    value double,                  -- the subject's own pictures against each other
    pairs integer,                 -- of two different pictures, whose mean it is
    primary key (suite_hash, subject, metric, protocol)
);
create table if not exists set_scores (
    run_id text, method text, metric text, protocol text, subject_count integer,
    value double, low double, high double,
    samples integer,               -- pictures of the method that it is about
    cases integer,                 -- the clusters of the interval
    lower_is_better boolean default false,
    primary key (run_id, method, metric, subject_count)
);
create table if not exists failures (
    run_id text, sample_key text, kind text, reason text, evidence_json json,
    rank integer,                  -- within the run and method, 1 is the worst
    primary key (run_id, sample_key, kind)
);
create table if not exists summaries (
    run_id text, method text, metric text,
    subject_count integer,         -- of cases of so many subjects
    mean double, low double, high double, samples integer,
    cases integer,                 -- the clusters of the interval
    floor double,                  -- the mean of plain SD on the same subjects, prompts and seeds
    ceiling double,                -- the mean of the ceilings of the same subjects
    primary key (run_id, method, metric, subject_count)
);
create table if not exists comparisons (
    run_id text, method text, reference text, metric text, subject_count integer,
    effect double, low double, high double, pairs integer, cases integer,
    p double,                      -- that the difference is none, two-sided; null where there is no interval
    p_holm double,                 -- corrected for all comparisons of the run with as many subjects (Holm)
    primary key (run_id, method, metric, subject_count)
);
create table if not exists ranks (
    run_id text, method text, metric text, subject_count integer,
    rank integer,                  -- of Bradley and Terry's strengths, 1 is the best
    strength double,               -- the strengths of the methods sum to 1
    win_rate double,               -- against the other methods on the same case, prompt and seed; a tie is half
    pairs integer,
    best integer, worst integer,   -- ranks with each subject left out in turn
    primary key (run_id, method, metric, subject_count)
);
create table if not exists training_seeds (
    run_id text, method text, metric text, subject_count integer,
    trainings integer, mean double,
    between_sd double,             -- of the means of the trainings, less what sampling alone makes of them
    sampling_sd double,            -- of a mean over the same cases, as each image has one noise
    primary key (run_id, method, metric, subject_count)
);
create table if not exists concept_counts (
    corpus text, concept text, count bigint, primary key (corpus, concept)
);
create table if not exists rarity (
    run_id text, subject text, class_noun text,
    corpus text, count bigint,     -- how often the class was seen, and in what; null when nobody knows
    instance_distance double,      -- of its pictures from plain SD's own of the class noun
    stratum text,
    primary key (run_id, subject)
);
create table if not exists rarity_fits (
    run_id text, method text, metric text,
    axis text,                     -- 'count': log10 of it; 'instance': the distance
    slope double, low double, high double, intercept double, subjects integer,
    half_at double, half_low double, half_high double,  -- a count or a distance; null where it cannot be said
    band_json json,                -- [x, low, high], x as on the axis
    note text,
    primary key (run_id, method, metric, axis)
);
create table if not exists rarity_focus (
    run_id text, concept text, count bigint, reason text, rank integer, primary key (run_id, concept)
);
create table if not exists focus_gains (
    run_id text, before_run_id text, method text, metric text, subject text, before double, after double,
    primary key (run_id, before_run_id, method, metric, subject)
);
create table if not exists trial_figures (
    name text primary key,         -- as validate_metrics prints it
    value double, unit text, higher_is_better boolean, bar double,
    note text,                     -- its interval, and what it is of
    measured timestamp, command text
);
create table if not exists replays (
    run_id text, rule text, says text,
    place integer,                 -- of the rule, 1 is the bench's own, which the others are held against
    metric text, subject_count integer, method text,
    mean double,
    rank integer,                  -- by this rule, 1 is the best
    left_out integer,              -- samples that the rule cannot score, and its means do not count
    tau double,                    -- Kendall's, of its order of the methods and the bench's own
    primary key (run_id, rule, metric, subject_count, method)
);
create table if not exists ballots (
    ballot text, pair integer, run_id text,
    left_key text, right_key text, -- the samples that voters see there; null in an attention check
    expected text,                 -- what an attention check wants to hear; else null
    primary key (ballot, pair)
);
create table if not exists votes (
    ballot text, pair integer, voter text,
    answer text,                   -- 'left', 'right' or 'tie'
    seconds double,                -- that it took
    primary key (ballot, pair, voter)
);
"""

VIEWS = """
create or replace view run_results as
    select run_id, sample_key, samples.method, case_id, subject_count, scores.subject, prompt_id, prompt_kind, prompt,
           image_index, seed, metric, protocol, value, explanation, metadata_json, samples.path, floor
    from run_samples join samples using (sample_key) join scores using (sample_key)
         join run_protocols using (run_id, metric, protocol);
-- One run only: averaging over runs would mix settings and count shared samples twice.
create or replace view results as
    select * from run_results where run_id = (select run_id from runs order by executed desc limit 1);
"""


def connect(path: Path) -> duckdb.DuckDBPyConnection:
    """The database at `path`, to write to, with all tables of this version: made anew or carried over from an earlier
    one, whole or not at all. UserError when another process has it open, when it is damaged, or of a later version.
    """
    connection = _open(path, read_only=False)
    with _usable(connection, path):
        found = version_of(connection)
        _check_known(found, path)
        if found == 0:
            create(connection)
        elif found < VERSION:
            connection.close()
            _carry_over(path, found)
            connection = duckdb.connect(str(path))
    return connection


def read(path: Path) -> duckdb.DuckDBPyConnection:
    """The database at `path`, for queries only; one of an earlier version as it would be carried over, in memory.
    UserError as `connect`.
    """
    connection = _open(path, read_only=True)
    with _usable(connection, path):
        found = version_of(connection)
        _check_known(found, path)
        if found < VERSION:
            connection.close()
            connection = duckdb.connect()
            create(connection)
            if found:
                migrations.carry(path, found, connection)
    return connection


def version_of(connection: duckdb.DuckDBPyConnection) -> int:
    """0 for an empty file. The first version did not say which it was."""
    names = {name for (name,) in connection.execute("select table_name from duckdb_tables()").fetchall()}
    if "schema_version" in names:
        row = connection.execute("select max(version) from schema_version").fetchone()
        return int(row[0]) if row and row[0] is not None else 0
    return 1 if "runs" in names else 0


def create(connection: duckdb.DuckDBPyConnection) -> None:
    """All tables of this version, empty."""
    connection.execute(f"begin; {SCHEMA} {VIEWS}; insert into schema_version values ({VERSION}); commit")


def _open(path: Path, read_only: bool) -> duckdb.DuckDBPyConnection:
    try:
        return duckdb.connect(str(path), read_only=read_only)
    except duckdb.Error as error:
        guess = "a duckdb shell without -readonly?" if "lock" in str(error) else "damaged?"
        raise _unusable(path, guess, error) from error


@contextmanager
def _usable(connection: duckdb.DuckDBPyConnection, path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        connection.close()
        if isinstance(error, duckdb.Error):
            raise _unusable(path, "damaged, or of another program?", error) from error
        raise


def _check_known(found: int, path: Path) -> None:
    if found > VERSION:
        raise UserError(f"{path} was made by a later version (schema {found}, this one knows {VERSION}); update")


def _carry_over(path: Path, found: int) -> None:
    """Into a file beside it, which then takes its place."""
    partial = path.with_name(f"{path.name}.part")
    for left in (partial, partial.with_name(f"{partial.name}.wal")):
        left.unlink(missing_ok=True)
    with duckdb.connect(str(partial)) as connection:
        create(connection)
        migrations.carry(path, found, connection)
    os.replace(partial, path)


def _unusable(path: Path, guess: str, error: duckdb.Error) -> UserError:
    return UserError(f"cannot open {path} ({guess}): {str(error).splitlines()[0]}")
