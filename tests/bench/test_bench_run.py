"""The command from end to end, with fake methods and a fake suite."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from tests.bench import bench_fakes
from tests.bench.bench_fakes import Painter, arguments

ROWS = "select sample_key, metric, protocol, value, explanation from scores order by all"


def query(folder: Path, sql: str) -> list[tuple]:
    with duckdb.connect(str(folder / "reports" / "umm_bench.duckdb"), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def test_a_run_makes_samples_scores_and_answers(bench, tmp_path, capsys):
    assert bench("--methods", "painter,other", "--images-per-prompt", "2") == 0
    assert query(tmp_path, "select count(*), count(distinct seed) from samples") == [(16, 8)]
    answers = query(tmp_path, "select metric, count(*) from results group by metric order by metric")
    ranks = ["gallery_rank", "gallery_reciprocal_rank"]
    metrics = ["background", "clip_i", "clip_t", "concept", "dino", *ranks, "identity"]
    assert answers == [(metric, 16) for metric in metrics]
    assert all((tmp_path / "reports" / path).is_file() for (path,) in query(tmp_path, "select path from samples"))
    means = dict(query(tmp_path, "select method, avg(value) from results where metric = 'dino' group by method"))
    assert means.keys() == {"painter", "other"} and all(-1 <= mean <= 1 for mean in means.values())
    out = capsys.readouterr().out
    assert "painter" in out and "index.html" in out and "umm_bench.duckdb" in out


def test_methods_start_from_the_same_noise(bench, tmp_path):
    assert bench("--methods", "painter,other") == 0
    seeds = query(tmp_path, "select method, case_id, prompt_id, seed from samples order by all")
    assert len(seeds) == 8
    assert [row[1:] for row in seeds if row[0] == "painter"] == [row[1:] for row in seeds if row[0] == "other"]
    # Same noise and same shade: the pairs are equal, so every effect is none (up to the place in a scoring batch).
    effects = query(tmp_path, "select effect, low, high, pairs from comparisons")
    assert effects and all(pairs == 4 for *_, pairs in effects)
    assert all(abs(effect) < 1e-6 for effect, *_ in effects)
    assert all(low is None and high is None for _, low, high, _ in effects)  # of two subjects


def test_the_same_command_twice_makes_nothing_and_changes_nothing(bench, tmp_path):
    assert bench("--methods", "painter") == 0
    before, drawn = query(tmp_path, ROWS), len(Painter.drawn)
    assert bench("--methods", "painter") == 0
    assert query(tmp_path, ROWS) == before
    assert len(Painter.drawn) == drawn == 4
    assert query(tmp_path, "select count(*) from runs") == [(1,)]


def test_a_stopped_run_goes_on_where_it_was(bench, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Painter, "fail_after", 3)
    assert bench("--methods", "painter") == 130
    assert "Traceback" not in capsys.readouterr().err
    kept = {path: path.read_bytes() for path in (tmp_path / "reports" / "samples").glob("*.png")}
    assert len(kept) == 3
    monkeypatch.setattr(Painter, "fail_after", None)
    assert bench("--methods", "painter") == 0
    assert len(Painter.drawn) == len(set(Painter.drawn)) == 4
    assert all(path.read_bytes() == content for path, content in kept.items())
    # Both subjects were set up before the stop; only the second still had something to draw.
    assert Painter.set_up == [("red-fox", False), ("blue-cup", False), ("blue-cup", True)]
    assert query(tmp_path, "select count(*) from setups where seconds >= 0 and peak_mb > 0") == [(2,)]


def test_a_setup_without_its_row_is_done_again(bench, tmp_path):
    assert bench("--methods", "painter", "--subjects", "1", "--prompts", "1") == 0
    with duckdb.connect(str(tmp_path / "reports" / "umm_bench.duckdb")) as connection:
        connection.execute("delete from setups")
    assert bench("--methods", "painter", "--subjects", "1", "--prompts", "2") == 0
    assert Painter.set_up == [("red-fox", False), ("red-fox", False)]


def test_a_setup_that_was_cut_off_costs_what_was_spent_before_too(bench, tmp_path, monkeypatch):
    setup = Painter.setup

    def went_on(self, subject, directory):
        setup(self, subject, directory)
        (directory / "state.json").write_text('{"seconds_before": 100.5}')
        return subject.id

    monkeypatch.setattr(Painter, "setup", went_on)
    assert bench("--methods", "painter", "--subjects", "1", "--prompts", "1") == 0
    [(seconds,)] = query(tmp_path, "select seconds from setups")
    assert 100.5 <= seconds < 102


def test_more_is_added_to_what_is_there(bench):
    assert bench("--methods", "painter") == 0
    assert bench("--methods", "painter,other", "--subjects", "3", "--prompts", "3") == 0
    assert len(Painter.drawn) == len(set(Painter.drawn)) + 9 == 18
    assert [name for name, _ in Painter.set_up].count("green-owl") == 1


def test_a_deleted_image_is_made_again(bench, tmp_path):
    assert bench("--methods", "painter") == 0
    (lost,) = list((tmp_path / "reports" / "samples").glob("*.png"))[:1]
    content = lost.read_bytes()
    lost.unlink()
    assert bench("--methods", "painter") == 0
    assert lost.read_bytes() == content and len(Painter.drawn) == 5


def test_an_image_made_again_has_no_scores_of_the_lost_one(bench, tmp_path, monkeypatch):
    assert bench("--methods", "painter") == 0
    for lost in (tmp_path / "reports" / "samples").glob("*.png"):
        lost.unlink()
    paint = bench_fakes.paint
    monkeypatch.setattr(bench_fakes, "paint", lambda seed, shade: paint(0, shade).point(lambda level: level // 2))
    assert bench("--methods", "painter") == 0
    red, _, blue = bench_fakes.paint(0, 100).getpixel((0, 0))
    seen = "select distinct metadata_json->>'red', metadata_json->>'blue' from results where metric = 'identity'"
    assert query(tmp_path, seen) == [(str(red), str(blue))]


def test_a_run_that_begins_again_says_nothing_until_it_ends(bench, tmp_path, monkeypatch):
    assert bench("--methods", "painter,other") == 0
    for lost in (tmp_path / "reports" / "samples").glob("*.png"):
        lost.unlink()
    monkeypatch.setattr(Painter, "fail_after", 0)
    assert bench("--methods", "painter,other") == 130
    for table in ("summaries", "comparisons", "failures"):
        assert query(tmp_path, f"select count(*) from {table}") == [(0,)]


def test_another_truth_is_another_verdict(bench, world, tmp_path):
    suite = shutil.copytree(world / "suite", tmp_path / "suite")
    words = ["--methods", "painter", "--suite-path", str(suite)]
    verdicts = "select avg(value), any_value(protocol) from results where metric = 'identity'"
    assert bench(*words) == 0
    ((red, protocol),) = query(tmp_path, verdicts)
    (suite / "truth.txt").write_text("blue")
    assert bench(*words) == 0
    ((blue, other),) = query(tmp_path, verdicts)
    assert red + blue == 1 and protocol != other and len(Painter.drawn) == 4


@pytest.mark.parametrize("finished", [False, True])
def test_references_that_moved_are_found(bench, world, tmp_path, monkeypatch, finished):
    shutil.copytree(world / "suite", tmp_path / "old" / "suite")
    words = ["--methods", "painter", "--suite-path", "suite"]
    monkeypatch.chdir(tmp_path / "old")
    assert bench(*words) == 0
    (tmp_path / "old").rename(tmp_path / "new")
    monkeypatch.chdir(tmp_path / "new")
    assert bench(*words, *([] if finished else ["--images-per-prompt", "2"])) == 0
    paths = [
        path for (row,) in query(tmp_path, "select references_json from sample_subjects") for path in json.loads(row)
    ]
    assert paths and all(Path(path).is_file() for path in paths)


def test_sprite_encoders_on_another_suite_are_warned_of(bench, capsys):
    words = ["--methods", "painter", "--subjects", "1", "--prompts", "1"]
    assert bench(*words) == 0
    assert capsys.readouterr().err == ""
    assert bench(*words, "--set", "dino.model=mini") == 0
    warning = capsys.readouterr().err
    assert warning.startswith("warning: dino.model, ") and warning.count("\n") == 1 and "'fake'" in warning


@pytest.mark.parametrize("change", [["--set", "painter.shade=90"], ["--steps", "3"], ["--seed", "1"]])
def test_whatever_makes_an_image_is_in_its_key(bench, change):
    assert bench("--methods", "painter") == 0
    assert bench("--methods", "painter", *change) == 0
    assert len(Painter.drawn) == 8


def test_prompts_spread_over_kinds_and_subjects_come_in_order(bench, tmp_path):
    assert bench("--methods", "painter") == 0
    assert query(tmp_path, "select distinct prompt_kind from samples order by all") == [
        ("accessorise",),
        ("recontextualise",),
    ]
    assert query(tmp_path, "select distinct case_id from samples order by all") == [("blue-cup",), ("red-fox",)]


def test_failures_have_reason_and_evidence(bench, tmp_path):
    assert bench("--methods", "painter", "--subjects", "3", "--prompts", "3") == 0
    failed = query(tmp_path, "select sample_key, kind, reason, evidence_json from failures order by rank")
    wrong = query(
        tmp_path, "select distinct sample_key from scores where metric in ('identity', 'background') and value = 0"
    )
    assert 0 < len(failed) == min(len(wrong), 8)
    kinds = [kind for _, kind, _, _ in failed]
    assert kinds == sorted(kinds, reverse=True)  # identity drift is graver than an ignored background
    for _, kind, reason, evidence in failed:
        assert reason.startswith(kind)
        assert {"red", "blue", "scores"} <= json.loads(evidence).keys()
    assert any("prefers blue-cup" in reason for _, _, reason, _ in failed)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--methods", "paintr"], "did you mean 'painter'"),
        (["--methods", "painter", "--metrics", "dinos"], "did you mean 'dino'"),
        (["--methods", "painter", "--set", "paint.shade=1"], "did you mean 'painter'"),
        (["--methods", "painter", "--set", "painter.shad=1"], "did you mean 'shade'"),
        (["--methods", "painter", "--set", "painter.shade=red"], "expected int"),
        (["--methods", "painter", "--set", "shade=1"], "expected NAME.KEY=VALUE"),
        (["--methods", "painter", "--set", "painter.shade=1", "--set", "painter.shade=2"], "shade is given twice"),
        (["--methods", "painter", "--subjects", "red-fix"], "did you mean 'red-fox'"),
        (["--methods", "painter", "--prompts", "beech"], "did you mean 'beach'"),
        (["--methods", "painter", "--suite", "fakes"], "did you mean 'fake'"),
        (["--methods", "painter", "--suite-path", "/nowhere/at/all"], "/nowhere/at/all"),
        (["--methods", "painter", "--base", "/nowhere"], "/nowhere"),
        (["--methods", "painter", "--set", "dino.model=/nowhere"], "/nowhere"),
        (["--methods", ","], "--methods"),
        (["--methods", "painter", "--subjects", "0"], "--subjects"),
        (["--methods", "painter", "--suite", "dreambench", "--suite-path", "."], "no DreamBench folder"),
    ],
)
def test_what_the_user_got_wrong_is_one_line_and_status_2(bench, capsys, words, says):
    assert bench(*words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and says in error


def test_an_unreadable_reference_is_named(bench, world, capsys):
    broken = world / "suite" / "red-fox" / "99.png"
    broken.write_bytes(b"not an image")
    try:
        assert bench("--methods", "painter") == 2
    finally:
        broken.unlink()
    assert str(broken) in capsys.readouterr().err


def test_a_finished_run_imports_no_torch(bench, world, tmp_path):
    assert bench("--methods", "painter") == 0
    words = arguments(world, tmp_path / "reports", "--methods", "painter")
    code = f"""
import contextlib, pathlib, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.bench import bench_fakes as fakes
from umm_bench import run
run._render = lambda *arguments: pathlib.Path("run-1/index.html")
with contextlib.ExitStack() as stack:
    for registration in fakes.register():
        stack.enter_context(registration)
    assert run.main({words!r}) == 0
heavy = [name for name in ("torch", "diffusers", "transformers") if name in sys.modules]
assert not heavy, heavy
assert not fakes.Painter.drawn
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
