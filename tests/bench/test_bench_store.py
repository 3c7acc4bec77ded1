import subprocess
import sys
from datetime import datetime

import pytest

from umm_bench.bench.store import Store
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
            store.replace_of_run("summaries", run_id, [{"method": "sd", "metric": "dino", "mean": 0.5}])
            store.replace_of_run("comparisons", run_id, [{"method": "umm", "metric": "dino", "effect": 0.1}])
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
