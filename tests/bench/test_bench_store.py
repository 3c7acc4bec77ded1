import subprocess
import sys
from datetime import datetime
from pathlib import Path

import duckdb
import pytest

from umm_bench.bench import schema
from umm_bench.bench.store import DATABASE_NAME, Store
from umm_bench.errors import UserError

SCORE = {"sample_key": "k", "metric": "dino", "protocol": "dino/1", "value": 0.5}


def test_writing_twice_is_writing_once(tmp_path):
    with Store(tmp_path) as store:
        for _ in range(2):
            store.upsert("scores", [{**SCORE, "metadata_json": {"a": 1}}])
        store.upsert("scores", [{**SCORE, "value": 0.6, "metadata_json": {"a": 2}}])
        rows = store.rows("select value, metadata_json->>'a' as a from scores")
    assert rows == [{"value": 0.6, "a": "2"}]


def test_another_protocol_is_another_row(tmp_path):
    with Store(tmp_path) as store:
        store.upsert("scores", [SCORE, {**SCORE, "protocol": "dino/2"}])
        assert store.scored_samples(["k", "l"], "dino", "dino/2") == {"k"}
        assert store.scored_samples(["k", "l"], "dino", "dino/3") == set()


def test_the_rows_of_a_run_are_replaced_and_of_others_kept(tmp_path):
    with Store(tmp_path) as store:
        store.replace_of_run("run_samples", "a", [{"sample_key": "1"}, {"sample_key": "2"}])
        store.replace_of_run("run_samples", "b", [{"sample_key": "1"}])
        store.replace_of_run("run_samples", "a", [{"sample_key": "2"}, {"sample_key": "3"}])
        store.replace_of_run("run_samples", "b", [])
        rows = store.rows("select run_id, sample_key from run_samples order by all")
    assert [tuple(row.values()) for row in rows] == [("a", "2"), ("a", "3")]


def test_a_failing_write_leaves_nothing_half_done(tmp_path):
    with Store(tmp_path) as store:
        store.replace_of_run("run_samples", "a", [{"sample_key": "1"}])
        with pytest.raises(KeyError):
            store.replace_of_run("run_samples", "a", [{"sample_key": "2"}, {"other": "3"}])
        assert store.rows("select sample_key from run_samples") == [{"sample_key": "1"}]


def test_results_shows_the_latest_run_under_its_own_protocol(tmp_path):
    with Store(tmp_path) as store:
        store.upsert("samples", [{"sample_key": key, "method": "sd", "path": "x"} for key in "kl"])
        store.upsert("scores", [SCORE, {**SCORE, "protocol": "old", "value": 9}, {**SCORE, "sample_key": "l"}])
        for day, run_id, keys in ((1, "a", "k"), (2, "b", "kl")):
            store.begin_run(run_id, datetime(2026, 1, day), command="")
            store.replace_of_run("run_samples", run_id, [{"sample_key": key} for key in keys])
            store.replace_of_run("run_protocols", run_id, [{"metric": "dino", "protocol": "dino/1"}])
        answer = "select method, avg(value) as mean, count(*) as n from results where metric='dino' group by method"
        assert store.rows(answer) == [{"method": "sd", "mean": 0.5, "n": 2}]
        store.mark_latest("a", datetime(2026, 1, 3))
        assert store.rows(answer) == [{"method": "sd", "mean": 0.5, "n": 1}]


def test_a_run_that_begins_has_no_conclusions_and_others_keep_theirs(tmp_path):
    with Store(tmp_path) as store:
        for run_id in "ab":
            store.replace_of_run("summaries", run_id, [{"method": "sd", "metric": "dino", "subject_count": 1}])
            store.replace_of_run("comparisons", run_id, [{"method": "umm", "metric": "dino", "subject_count": 1}])
            store.replace_of_run("failures", run_id, [{"sample_key": "k", "kind": "low fidelity"}])
        store.begin_run("a", datetime(2026, 1, 1), command="")
        for table in ("summaries", "comparisons", "failures"):
            assert store.rows(f"select run_id from {table}") == [{"run_id": "b"}]


def test_a_sample_without_its_scores_unfinishes_the_runs_that_have_it(tmp_path):
    with Store(tmp_path) as store:
        store.upsert("scores", [SCORE, {**SCORE, "protocol": "old"}, {**SCORE, "sample_key": "l"}])
        for run_id, key in (("a", "k"), ("b", "l")):
            store.begin_run(run_id, datetime(2026, 1, 1), command="")
            store.replace_of_run("run_samples", run_id, [{"sample_key": key}])
            store.finish_run(run_id, "inputs")
        store.forget_scores(["k"])
        assert store.rows("select sample_key from scores") == [{"sample_key": "l"}]
        finished = [store.run(run_id)["finished_inputs"] for run_id in "ab"]
    assert finished == [None, "inputs"]


def test_what_was_written_survives_a_kill(tmp_path):
    code = f"""
import os, signal
from pathlib import Path
from umm_bench.bench.store import Store
store = Store(Path({str(tmp_path)!r}))
store.upsert("scores", [{SCORE!r}])
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode < 0
    with Store(tmp_path) as store:
        assert store.scored_samples(["k"], "dino", "dino/1") == {"k"}


def test_a_database_in_use_is_a_clear_error(tmp_path):
    with Store(tmp_path):
        code = f"from pathlib import Path\nfrom umm_bench.bench.store import Store\nStore(Path({str(tmp_path)!r}))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "UserError: cannot open" in done.stderr


def test_no_database_in_a_file(tmp_path):
    (tmp_path / "umm_bench.duckdb").write_text("this is no database")
    with pytest.raises(UserError, match="cannot open"):
        Store(tmp_path)


def test_the_reasons_of_a_stage_are_replaced_and_of_others_kept(tmp_path):
    def row(key, stage):
        return {"sample_key": key, "status": "failed", "stage": stage, "reason": stage}

    with Store(tmp_path) as store:
        store.replace_undrawn(["a", "b"], [row("a", "plan"), row("b", "setup")])
        store.replace_undrawn(["a", "b"], [], "plan")
        assert store.undrawn(["a", "b"]).keys() == {"b"}
        store.replace_undrawn(["b"], [])
        assert store.undrawn(["a", "b"]) == {}


OLD = Path(__file__).parent / "store_v1"
"""What `export database` wrote of a run of two methods by the first version of the store."""


@pytest.fixture
def old_store(tmp_path) -> Path:
    with duckdb.connect(str(tmp_path / DATABASE_NAME)) as connection:
        tables, views = [], []
        for line in (OLD / "schema.sql").read_text().splitlines():
            (views if line.startswith("CREATE VIEW") else tables).append(line)
        for line in [*tables, *reversed(views)]:
            connection.execute(line)
        for path in OLD.glob("*.csv"):
            connection.execute(f"copy {path.stem} from '{path}' (header)")
    return tmp_path


def test_a_store_of_the_first_version_is_carried_over(old_store):
    with duckdb.connect(str(old_store / DATABASE_NAME)) as connection:
        assert schema.version_of(connection) == 1
        old = "select method, metric, avg(value) as mean, count(*) as n from results group by all order by all"
        before = connection.execute(old).fetchall()
        pictures = "select sample_key, subject, references_json from {} order by 1"
        references = connection.execute(pictures.format("samples")).fetchall()
        times = connection.execute("select setup_key, seconds from setups order by 1").fetchall()
    assert len(before) == 12
    with Store(old_store) as store:
        assert schema.version_of(store.connection) == schema.VERSION == 2
        assert [tuple(row.values()) for row in store.rows(old)] == before
        found = store.rows(pictures.format("sample_subjects"))
        assert [tuple(row.values()) for row in found] == references
        assert [tuple(r.values()) for r in store.rows("select setup_key, seconds from setups order by 1")] == times
        samples = store.rows("select distinct case_id, subject_count from samples order by 1")
        assert [tuple(row.values()) for row in samples] == [("blue-cup", 1), ("red-fox", 1)]
        about = store.rows("select metric, bool_and(subject = case_id) as own from run_results group by 1")
        assert {row["metric"] for row in about if row["own"]} == {"clip_i", "concept", "dino", "identity"}
        assert store.rows("select min(cases) as least, min(subject_count) as one from summaries") == [
            {"least": 2, "one": 1}
        ]
        assert store.rows("select count(*) as n from failures")[0]["n"] > 0
    with Store(old_store) as store:
        assert [tuple(row.values()) for row in store.rows(old)] == before


def test_a_carrying_over_that_fails_leaves_the_old_store(old_store, monkeypatch):
    monkeypatch.setattr(schema, "FROM_1", schema.FROM_1 + "; select nonsense")
    with pytest.raises(UserError, match="damaged, or of another program"):
        Store(old_store)
    monkeypatch.undo()
    with duckdb.connect(str(old_store / DATABASE_NAME)) as connection:
        assert schema.version_of(connection) == 1
        assert connection.execute("select count(subject) from samples").fetchone() == (8,)
    with Store(old_store) as store:
        assert store.rows("select count(*) as n from samples") == [{"n": 8}]


def test_a_store_from_before_ceilings_gets_their_tables_and_columns(tmp_path):
    with Store(tmp_path) as store:
        store.replace_of_run("run_protocols", "a", [{"metric": "dino", "protocol": "dino/1"}])
        for view in ("results", "run_results"):
            store.connection.execute(f"drop view {view}")
        for table in ("unscored", "ceilings", "set_scores"):
            store.connection.execute(f"drop table {table}")
        store.connection.execute("alter table summaries drop column floor")
        store.connection.execute("alter table summaries drop column ceiling")
        store.connection.execute("alter table run_protocols drop column lower_is_better")
    with Store(tmp_path) as store:
        assert store.rows("select metric, lower_is_better from run_protocols") == [
            {"metric": "dino", "lower_is_better": False}
        ]
        assert store.rows("select floor, ceiling from summaries") == []
        for table in ("unscored", "ceilings", "set_scores", "results"):
            assert store.rows(f"select * from {table}") == []


def test_a_store_of_a_later_version_is_refused(tmp_path):
    with Store(tmp_path) as store:
        store.connection.execute("update schema_version set version = 99")
    with pytest.raises(UserError, match="made by a later version"):
        Store(tmp_path)


def test_a_truncated_database_is_one_line(tmp_path):
    with Store(tmp_path) as store:
        store.upsert("scores", [SCORE])
    path = tmp_path / DATABASE_NAME
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(UserError, match="cannot open") as error:
        Store(tmp_path)
    assert "\n" not in str(error.value)
