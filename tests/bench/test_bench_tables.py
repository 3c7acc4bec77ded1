"""What leaves the store: a frame, files, and the answers that the documentation asks for."""

import json
import re
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest

import umm_bench
from umm_bench import export
from umm_bench.bench.keeping import pictures
from umm_bench.bench.store import OpenAnswers, Store
from umm_bench.errors import UserError

QUERIES = re.findall(r"^```sql\n(.*?)^```$", (Path(__file__).parents[2] / "docs" / "store.md").read_text(), re.M | re.S)


@pytest.fixture
def folder(bench, tmp_path) -> Path:
    """The store of a run of three methods, a part of whose images fails."""
    assert bench("--methods", "painter,other,fussy", "--subjects", "2", "--prompts", "3", "--pairs", "1") == 1
    return tmp_path / "reports"


def test_the_ten_questions_of_the_documentation_have_answers(folder):
    assert len(QUERIES) == 10
    with duckdb.connect(str(folder / "umm_bench.duckdb"), read_only=True) as connection:
        for query in QUERIES:
            assert connection.execute(query).fetchall(), query


def test_a_run_is_a_frame(folder):
    frame = umm_bench.results(folder)
    with OpenAnswers(folder) as answers:
        rows = answers.rows("select method, avg(value) as mean from results where metric = 'dino' group by method")
        number = answers.rows("select count(*) as n from results")[0]["n"]
    assert len(frame) == number
    means = frame[frame.metric == "dino"].groupby("method").value.mean()
    assert means.to_dict() == pytest.approx({row["method"]: row["mean"] for row in rows})
    assert all(Path(path).is_file() for path in frame.path.unique())
    assert set(frame[frame.subject == "red-fox"].class_noun) == {"fox"}
    (run_id,) = frame.run_id.unique()
    pd.testing.assert_frame_equal(umm_bench.results(folder, run_id), frame)
    with pytest.raises(UserError, match=f"no run 'run-x'; there are {run_id}"):
        umm_bench.results(folder, "run-x")
    with pytest.raises(UserError, match="no run is in"):
        umm_bench.results(folder / "nowhere")


def test_a_frame_of_a_run_that_is_still_drawing(folder):
    finished = umm_bench.results(folder)
    with Store(folder):
        pd.testing.assert_frame_equal(umm_bench.results(folder), finished)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_an_export_has_what_the_frame_has(folder, tmp_path, kind, capsys):
    output = tmp_path / "it's out"
    words = ["--store", str(folder), "--output", str(output), "--format", kind]
    assert export.main(words) == 0 and export.main(words) == 0  # over itself
    path = output / f"results.{kind}"
    frame = pq.read_table(path).to_pandas() if kind == "parquet" else pd.read_csv(path)
    expected = umm_bench.results(folder)
    assert list(frame.columns) == list(expected.columns)
    assert frame.value.to_list() == pytest.approx(expected.value.to_list())
    assert frame.path.to_list() == expected.path.to_list()
    told = json.loads((output / "export.json").read_text())
    assert told["run"] == expected.run_id[0] and told["rows"]["results"] == len(expected)
    assert {p.name for p in output.iterdir()} == {f"{name}.{kind}" for name in told["rows"]} | {"export.json"}
    assert told["rows"]["undrawn"] > 0 and told["rows"]["comparisons"] > 0


def test_an_export_takes_nothing_else_away(folder, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert export.main(["--store", str(folder), "--output", str(tmp_path / "mine")]) == 2
    assert "holds other files" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    assert export.main(["--store", str(tmp_path), "--output", str(tmp_path / "new")]) == 2
    assert export.main(["--store", str(folder), "--run", "run-x", "--output", str(tmp_path / "new")]) == 2
    assert not (tmp_path / "new").exists()


def test_a_sample_says_in_its_picture_and_in_its_row_what_made_it(folder):
    with OpenAnswers(folder) as answers:
        rows = answers.rows("select * from samples where method = 'painter'")
        (execution,) = answers.rows("select * from executions")
    for row in rows:
        told = pictures.parameters_of(folder / row["path"])
        assert told["sample_key"] == row["sample_key"] and told["seed"] == row["seed"]
        assert told["method"] == "painter" and told["config_json"]["shade"] == 100
        assert told["config_json"]["generation"]["num_inference_steps"] == 20
        assert row["bytes"] == (folder / row["path"]).stat().st_size and row["device"]
    assert execution["ended"] == "done" and execution["seconds"] > 0
    assert execution["images"] == 18 and execution["command"].startswith("--suite fake")
    assert json.loads(execution["versions_json"]).keys() >= {"python", "torch", "duckdb"}
    assert json.loads(execution["options_json"])["batch_size"] == 4
