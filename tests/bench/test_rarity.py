"""Rarity: lines that are there are found, those that are not are not said; the two axes stay apart."""

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from umm_bench import rare
from umm_bench.bench import rarity
from umm_bench.bench.rarity import fit
from umm_bench.bench.store import Store
from umm_bench.suites.dreambench import LAION_400M


def test_a_line_that_is_there_is_found_with_its_threshold():
    x = np.linspace(0, 4, 12)
    line = fit(x, 0.1 + 0.2 * x)
    assert (line.slope, line.intercept) == (pytest.approx(0.2), pytest.approx(0.1))
    assert line.low == pytest.approx(0.2) and line.high == pytest.approx(0.2) and line.note == ""
    assert line.half[0] == pytest.approx((0.45 - 0.1) / 0.2)  # half of 0.9
    assert all(low <= 0.1 + 0.2 * at <= high + 1e-9 for at, low, high in line.band)
    down = fit(x, 0.9 - 0.2 * x, better=-1)
    assert down.slope == pytest.approx(-0.2) and down.half[0] == pytest.approx(2.25)


def test_what_may_be_none_has_no_threshold():
    noise = np.random.default_rng(0).normal(size=30)
    line = fit(np.arange(30.0), noise)
    assert line.low < 0 < line.high and line.half is None and "may be none" in line.note
    assert fit([1, 2, 3, 4], [0, 0, 1, 1]) is None  # too few
    assert fit([2] * 9, range(9)) is None
    wrong = fit(np.arange(9.0), -np.arange(9.0))  # rarer is better: no threshold either
    assert wrong.half is None


@pytest.mark.parametrize("subjects", [6, 12, 30])
def test_the_intervals_cover_about_as_often_as_they_say(subjects):
    """Of the slope and of the threshold, also where rare subjects scatter less than frequent ones."""
    rng = np.random.default_rng(1)
    x = np.linspace(0, 3, subjects)
    slopes, halves = [], []
    for _ in range(400):
        line = fit(x, 0.2 + 0.3 * x + rng.normal(0, 0.04 + 0.04 * x))
        slopes.append(line.low <= 0.3 <= line.high)
        if line.half is not None:
            halves.append(line.half[1] <= (1.1 / 2 - 0.2) / 0.3 <= line.half[2])
    assert len(halves) > 300
    assert 0.92 <= np.mean(slopes) <= 0.99 and 0.92 <= np.mean(halves) <= 0.99


def test_one_subject_apart_from_what_all_others_share_makes_no_line():
    assert fit([0, 0, 0, 0, 0, 1], [0.1, 0.2, 0.3, 0.2, 0.2, 0.9]) is None
    assert fit([0, 0, 0, 0, 1, 1], [0.1, 0.2, 0.3, 0.2, 0.8, 0.9]).slope == pytest.approx(0.65)


def add_run(store: Store, scores: dict[str, float], run_id: str = "run-1") -> None:
    """A run of UMM with one picture of each subject, and its identity."""
    store.begin_run(run_id, datetime(2026, 1, 1), command="x", suite="s", suite_hash="h", config_json={})
    for name, value in scores.items():
        sample = {"sample_key": name, "method": "umm", "case_id": name, "subject_count": 1, "seed": 0, "path": "x"}
        store.upsert("samples", [sample])
        store.upsert("run_samples", [{"run_id": run_id, "sample_key": name}])
        row = {"sample_key": name, "metric": "identity", "protocol": "p", "subject": name, "value": value}
        store.upsert("scores", [row])
    store.upsert("run_protocols", [{"run_id": run_id, "metric": "identity", "protocol": "p"}])
    store.finish_run(run_id, "all")


def subject(name: str, noun: str, count: int | None, distance: float | None) -> dict:
    return {"subject": name, "class_noun": noun, "corpus": "c", "count": count, "instance_distance": distance,
            "stratum": None}  # fmt: skip


@pytest.fixture
def crossed(tmp_path):
    """Twelve subjects, count and distance crossed; only the count matters."""
    counts, distances = (10, 100, 1000, 10000), (0.1, 0.3, 0.5)
    rows = [subject(f"s{i}-{k}", f"noun{i}", c, d) for i, c in enumerate(counts) for k, d in enumerate(distances)]
    with Store(tmp_path) as store:
        add_run(store, {row["subject"]: 0.2 * np.log10(row["count"]) for row in rows})
        rarity.write(store, "run-1", rows)
    return tmp_path


def test_on_crossed_data_only_the_axis_that_matters_has_a_slope(crossed):
    with Store(crossed) as store:
        fits = {row["axis"]: row for row in store.rows("select * from rarity_fits")}
        focus = store.rows("select * from rarity_focus order by rank")
    assert fits["count"]["slope"] == pytest.approx(0.2) and fits["count"]["half_at"] == pytest.approx(100)
    assert fits["instance"]["low"] < 0 < fits["instance"]["high"] and fits["instance"]["half_at"] is None
    assert [row["concept"] for row in focus] == ["noun0", "noun1"]
    assert "umm's identity is 0.500 below the 0.700" in focus[0]["reason"]


def test_the_command_prints_both_axes_and_writes_what_to_mine(crossed, capsys, tmp_path):
    assert rare.main(["--output", str(crossed), "--focus", str(tmp_path / "focus.txt")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "count identity umm 0.200" in out and "the slope may be none" in out and "frequent 0.700 (4)" in out
    words = [line for line in (tmp_path / "focus.txt").read_text().splitlines() if not line.startswith("#")]
    assert words == ["noun0", "noun1"]


def test_other_counts_can_be_given(crossed, capsys, tmp_path):
    build = tmp_path / "build"
    build.mkdir()
    table = pa.table({"concept": ["noun3", "noun2", "noun1"], "count": [1, 10, 100]})
    pq.write_table(table, build / rare.COUNTS)
    assert rare.main(["--output", str(crossed), "--counts", str(build)]) == 0
    with Store(crossed) as store:
        seen = {row["class_noun"]: row["count"] for row in store.rows("select class_noun, count from rarity")}
    assert seen == {"noun0": 0, "noun1": 100, "noun2": 10, "noun3": 1}
    capsys.readouterr()
    (build / rare.COUNTS).write_bytes(b"no parquet")
    for counts in (build, tmp_path / "nowhere"):
        assert rare.main(["--output", str(crossed), "--counts", str(counts)]) == 2
        assert capsys.readouterr().err.startswith("error: --counts")


def test_where_nobody_knows_counts_nothing_is_fitted_or_asked_for(tmp_path, capsys):
    rows = [subject(f"s{i}", "dog", None, None) for i in range(9)]
    with Store(tmp_path) as store:
        add_run(store, {row["subject"]: 0.5 for row in rows})
        rarity.write(store, "run-1", rows)
    assert rare.main(["--output", str(tmp_path), "--focus", str(tmp_path / "focus.txt")]) == 0
    assert "no line is fitted" in capsys.readouterr().out
    assert [line for line in (tmp_path / "focus.txt").read_text().splitlines() if not line.startswith("#")] == []


@pytest.mark.parametrize("words", [["--run", "run-9"], []])
def test_a_run_that_is_not_there_is_said_in_one_line(words, tmp_path, capsys):
    with Store(tmp_path / "store"):
        pass
    folder = tmp_path / "store" if words else tmp_path / "empty"
    assert rare.main(["--output", str(folder), *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_published_counts_are_of_classes_of_dreambench():
    listing = Path(__file__).parents[3] / "shared" / "data" / "dreambench" / "prompts_and_classes.txt"
    if not listing.is_file():
        pytest.skip("no copy of DreamBench beside the project")
    from umm_bench.suites.dreambench import DreamBench

    counts = DreamBench(listing.parent).concept_counts()
    assert counts["dog"] == 552_000 and set(counts) <= set(LAION_400M) and len(counts) >= 10


def test_where_nothing_comes_through_the_next_score_says_what_is_lacking():
    rows = [subject("a", "often", 100, None), subject("b", "seldom", 1, None)]
    means = {("umm", "identity"): {"a": 0.0, "b": 0.0}, ("umm", "dino"): {"a": 0.6, "b": 0.5}}
    (lacking,) = rarity._focus(means, rows)
    assert lacking["concept"] == "seldom" and "umm's dino is 0.100 below the 0.600" in lacking["reason"]


def test_a_suite_as_data_says_what_is_new_of_each_subject(capsys):
    from umm_bench.suites.__main__ import main

    assert main(["show", "mini"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["strata"]) >= {subject["id"] for subject in told["subjects"]}
    assert {"look, frequent", "usual, rare", "drawing, never"} <= set(told["strata"].values())
