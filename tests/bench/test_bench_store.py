import subprocess
import sys
from datetime import datetime
from pathlib import Path

import duckdb
import pytest
from PIL import Image

from umm_bench.bench import schema
from umm_bench.bench.keeping import migrations, pictures, provenance
from umm_bench.bench.store import DATABASE_NAME, OpenAnswers, Store
from umm_bench.errors import UserError
from umm_bench.seeding import digest

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
OLD_2 = Path(__file__).parent / "store_v2"
OLD_3 = Path(__file__).parent / "store_v3"
"""And of ones with a pair, by the second and the third."""


def make_old(files: Path, folder: Path) -> Path:
    """A database from what `export database` wrote of one."""
    with duckdb.connect(str(folder / DATABASE_NAME)) as connection:
        tables, views = [], []
        for line in (files / "schema.sql").read_text().splitlines():
            (views if line.startswith("CREATE VIEW") else tables).append(line)
        for line in [*tables, *sorted(views, key=lambda line: "run_results" not in line.split("AS")[0])]:
            connection.execute(line)
        for path in files.glob("*.csv"):
            empty = ", force_not_null (subject)" if path.stem == "scores" and files != OLD else ""
            connection.execute(f"copy {path.stem} from '{path}' (header{empty})")
    return folder


@pytest.fixture
def old_store(tmp_path) -> Path:
    return make_old(OLD, tmp_path)


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
        assert schema.version_of(store.connection) == schema.VERSION == 4
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
    monkeypatch.setitem(migrations.STATEMENTS, 1, migrations.FROM_1 + "; select nonsense")
    with pytest.raises(UserError, match="damaged, or of another program"):
        Store(old_store)
    monkeypatch.undo()
    with duckdb.connect(str(old_store / DATABASE_NAME)) as connection:
        assert schema.version_of(connection) == 1
        assert connection.execute("select count(subject) from samples").fetchone() == (8,)
    with Store(old_store) as store:
        assert store.rows("select count(*) as n from samples") == [{"n": 8}]


def rows_of(connection: duckdb.DuckDBPyConnection, table: str, columns: str = "*") -> list[tuple]:
    return connection.execute(f"select {columns} from {table} order by all").fetchall()


@pytest.mark.parametrize(("files", "version", "tables"), [(OLD_2, 2, 19), (OLD_3, 3, 22)])
def test_a_store_of_a_later_version_keeps_every_row(tmp_path, files, version, tables):
    make_old(files, tmp_path)
    with duckdb.connect(str(tmp_path / DATABASE_NAME)) as connection:
        assert schema.version_of(connection) == version
        names = connection.execute("select table_name from duckdb_tables()").fetchall()
        names = {name for (name,) in names} - {"schema_version"}
        columns = {
            name: ", ".join(column for column, *_ in connection.execute(f"describe {name}").fetchall())
            for name in names
        }
        before = {name: rows_of(connection, name) for name in names}
    assert len(before) == tables and sum(map(len, before.values())) > 150
    with OpenAnswers(tmp_path) as answers:  # without carrying the file over
        assert {name: rows_of(answers.connection, name, columns[name]) for name in names} == before
    with duckdb.connect(str(tmp_path / DATABASE_NAME), read_only=True) as connection:
        assert schema.version_of(connection) == version
    with Store(tmp_path) as store:
        assert schema.version_of(store.connection) == schema.VERSION
        assert {name: rows_of(store.connection, name, columns[name]) for name in names} == before
        assert store.rows("select count(*) as n from results")[0]["n"] > 90
        assert store.rows("select * from votes") == []


def test_a_new_database_and_one_carried_over_have_the_same_columns(tmp_path):
    (tmp_path / "new").mkdir(), (tmp_path / "old").mkdir()
    make_old(OLD_2, tmp_path / "old")
    query = "select table_name, column_name, data_type from duckdb_columns() order by all"
    with Store(tmp_path / "new") as new, Store(tmp_path / "old") as old:
        assert new.rows(query) == old.rows(query)


def test_the_schema_is_not_changed_without_a_new_version():
    """Whoever changes a table raises VERSION, freezes the store of today beside the others and writes this digest."""
    assert schema.VERSION == 4
    assert digest(" ".join((schema.SCHEMA + schema.VIEWS).split())) == "f9bde65dd741249480e3"


def test_readers_read_while_a_run_writes_and_keep_what_they_opened(tmp_path):
    reader = """
import sys
from pathlib import Path
from umm_bench.bench.store import OpenAnswers
with OpenAnswers(Path(sys.argv[1])) as answers:
    print(answers.rows("select count(*) as n from scores")[0]["n"])
"""

    def seen_by_another() -> int:
        done = subprocess.run([sys.executable, "-c", reader, str(tmp_path)], capture_output=True, text=True, check=True)
        return int(done.stdout)

    with Store(tmp_path) as store:
        store.upsert("scores", [SCORE])
        store.publish()
        with OpenAnswers(tmp_path) as long:
            assert seen_by_another() == 1
            store.upsert("scores", [{**SCORE, "sample_key": "l"}])
            store.publish()
            assert long.rows("select count(*) as n from scores") == [{"n": 1}]
            assert seen_by_another() == 2
    with OpenAnswers(tmp_path) as answers:
        assert answers.rows("select count(*) as n from scores") == [{"n": 2}]
    assert sorted(path.name for path in tmp_path.iterdir()) == [DATABASE_NAME, f"{DATABASE_NAME}.lock"]


def test_a_shell_that_stays_open_does_not_hold_a_run_up(tmp_path):
    with Store(tmp_path) as store:
        store.upsert("scores", [SCORE])
    code = f"import duckdb, sys; c = duckdb.connect({str(tmp_path / DATABASE_NAME)!r}, read_only=True);"
    code += "print('open', flush=True); sys.stdin.read(); print(c.execute('select count(*) from scores').fetchone()[0])"
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout.readline() == "open\n"
        with Store(tmp_path) as store:
            store.upsert("scores", [{**SCORE, "sample_key": "l"}])
        assert shell.communicate("")[0] == "1\n"
    with OpenAnswers(tmp_path) as answers:
        assert answers.rows("select count(*) as n from scores") == [{"n": 2}]


def test_rows_are_published_by_the_clock(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("umm_bench.bench.store.time.monotonic", lambda: now[0])
    with Store(tmp_path) as store:
        store.upsert("scores", [SCORE])
        with OpenAnswers(tmp_path) as answers:
            assert answers.rows("select * from scores") == []
        now[0] = 10.0
        store.upsert("scores", [{**SCORE, "sample_key": "l"}])
        with OpenAnswers(tmp_path) as answers:
            assert answers.rows("select count(*) as n from scores") == [{"n": 2}]


def test_an_execution_says_how_long_it_took_so_far_and_how_it_ended(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("umm_bench.bench.store.time.monotonic", lambda: now[0])
    query = "select seconds, ended, images from executions"
    with Store(tmp_path) as store:
        store.begin_execution("run", datetime(2026, 1, 1), command="python -m umm_bench.run")
        now[0] = 30.0
        store.publish()
        with OpenAnswers(tmp_path) as answers:
            assert answers.rows(query) == [{"seconds": 30.0, "ended": None, "images": None}]
        now[0] = 40.0
        store.note_work(3, 6, 2.0)
        store.end_execution("done")
        now[0] = 50.0
    with OpenAnswers(tmp_path) as answers:
        assert answers.rows(query) == [{"seconds": 40.0, "ended": "done", "images": 3}]


def test_where_a_run_comes_from(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "file").write_text("one")
    name = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["add", "file"], [*name, "commit", "-qm", "one"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    commit, dirty = provenance.commit_of(tmp_path)
    assert len(commit) == 40 and dirty is False
    (tmp_path / "file").write_text("two")
    provenance.commit_of.cache_clear()
    assert provenance.commit_of(tmp_path) == (commit, True)
    assert provenance.commit_of(tmp_path / "nowhere") == (None, None)
    told = provenance.provenance()
    assert {"python", "torch", "diffusers", "duckdb"} <= told["versions_json"].keys()
    assert told["machine_json"]["cores"] >= 1 and told["machine_json"]["memory_gb"] > 0


def test_a_picture_carries_its_parameters_and_is_known_by_what_it_shows(tmp_path):
    image = Image.new("RGB", (4, 4), (1, 2, 3))
    pictures.save(image, tmp_path / "a.png", {"seed": 7, "prompt": "a crème \n fox"})
    assert pictures.parameters_of(tmp_path / "a.png") == {"seed": 7, "prompt": "a crème \n fox"}
    pictures.save(image, tmp_path / "b.png", {"prompt": "a crème \n fox", "seed": 7})
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as again:
        assert pictures.content_of(again) == pictures.content_of(image)
    assert pictures.content_of(Image.new("RGB", (2, 8), (1, 2, 3))) != pictures.content_of(image)
    image.save(tmp_path / "plain.png")
    with pytest.raises(UserError, match="carries no parameters"):
        pictures.parameters_of(tmp_path / "plain.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UserError, match="cannot read"):
        pictures.parameters_of(tmp_path / "text.png")


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
