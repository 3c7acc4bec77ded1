"""From each earlier version of the schema to the present one, into empty tables of it."""

from __future__ import annotations

from pathlib import Path

import duckdb

# Every sample had one subject, and every score but that of the words and of the background was about it.
FROM_1 = """
insert into setups by name select * exclude (subject), subject as case_id from old.setups;
insert into samples by name
    select * exclude (subject, class_noun, setup_key, references_json), subject as case_id, 1 as subject_count
    from old.samples;
insert into sample_subjects by name
    select sample_key, 1 as place, subject, class_noun, references_json, '[]' as held_out_json, setup_key
    from old.samples;
insert into scores by name
    select scores.*, case when metric in ('clip_t', 'background') then '' else coalesce(subject, '') end as subject
    from old.scores left join (select sample_key, subject from old.samples) using (sample_key);
insert into summaries by name
    select * exclude (subjects), subjects as cases, 1 as subject_count from old.summaries;
insert into comparisons by name
    select * exclude (subjects), subjects as cases, 1 as subject_count from old.comparisons;
"""
CHANGED_SINCE = {1: ("setups", "samples", "scores", "summaries", "comparisons"), 2: (), 3: ()}
"""The tables of a version that are not as they were, less columns that came since."""
STATEMENTS = {1: FROM_1, 2: "", 3: ""}


def carry(path: Path, version: int, connection: duckdb.DuckDBPyConnection) -> None:
    """All rows of the database at `path`, which is of an earlier `version`, into the empty tables of `connection`."""
    quoted = str(path).replace("'", "''")
    connection.execute(f"attach '{quoted}' as old (read_only)")
    names = connection.execute("select table_name from duckdb_tables() where database_name = 'old'").fetchall()
    connection.execute("begin")
    for name in sorted({name for (name,) in names} - {"schema_version", *CHANGED_SINCE[version]}):
        connection.execute(f"insert into {name} by name select * from old.{name}")
    connection.execute(STATEMENTS[version])
    connection.execute("commit; detach old")
