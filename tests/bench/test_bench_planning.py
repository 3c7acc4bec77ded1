"""What is told before a run starts, and the largest part that fits into a budget."""

import re
from pathlib import Path

import pytest

from tests.bench.bench_fakes import Painter
from umm_bench import run
from umm_bench.bench.planning.costs import Costs, largest_part
from umm_bench.bench.planning.detectable import Detectable
from umm_bench.bench.store import OpenAnswers

DREAMBENCH = Path(__file__).parents[3] / "shared" / "data" / "dreambench"


def test_a_dry_run_tells_the_plan_and_makes_nothing(bench, tmp_path, capsys):
    assert bench("--methods", "painter,other", "--pairs", "1", "--dry-run") == 0
    told = capsys.readouterr().out
    assert (
        "subjects  2: " in told
        and "pairs     1: red-fox+blue-cup" in told
        and "beach: a {subject} on the beach" in told
    )
    assert re.search(r"painter +6 +6 +2 +not measured", told) and re.search(r"other +4 +4 +2", told)
    assert "detects   with 2 cases" in told
    assert not (tmp_path / "reports").exists() and Painter.drawn == []


def test_a_dry_run_goes_by_what_was_measured(bench, tmp_path, capsys):
    assert bench("--methods", "painter,other", "--subjects", "3") == 0
    before = sorted(path.name for path in (tmp_path / "reports").rglob("*"))
    capsys.readouterr()
    words = ["--methods", "painter,other", "--subjects", "3", "--images-per-prompt", "2"]
    assert bench(*words, "--dry-run") == 0
    told = capsys.readouterr().out
    assert re.search(r"painter +12 +6 +0 +\d+ s +0\.0 MB", told)
    assert "not measured" not in told and "dino: 0.000 (" not in told
    assert "the cases' differences scatter" in told or "standard deviations" in told
    assert sorted(path.name for path in (tmp_path / "reports").rglob("*")) == before


def test_a_detectable_difference_in_words():
    assert "0.060" in str(Detectable("dino", 8, 1.2, 0.05))
    assert "1.20 standard deviations" in str(Detectable("dino", 8, 1.2, None))
    assert "nothing" in str(Detectable("dino", 1, None, 0.05))


@pytest.mark.parametrize(
    ("setup", "seconds", "part"),
    [
        (0.0, 1000.0, (3, 0, 3)),
        (0.0, 4.0, (2, 0, 2)),  # 4 images in two ways: more subjects, and those are as many as prompts allow
        (0.0, 3.0, (3, 0, 1)),
        (10.0, 13.5, (1, 0, 3)),  # a setup is dearer than prompts
        (10.0, 1.0, (1, 0, 1)),  # nothing fits: the least there is
    ],
)
def test_the_largest_part_that_fits(bench, world, setup, seconds, part):
    words = ["--methods", "painter", "--subjects", "3", "--prompts", "3"]
    plan = _plan(world, words)
    assert largest_part(plan, Costs({"painter": 1.0}, {"painter": setup}, 0.0), seconds) == part


def _plan(world, words):
    from tests.bench.bench_fakes import arguments
    from umm_bench.bench.options import make_parser, read_request
    from umm_bench.bench.plan import make_plan
    from umm_bench.bench.selection import select

    request = read_request(make_parser("x").parse_args(arguments(world, world / "none", *words)))
    return make_plan(request, select(request))


def test_a_budget_draws_a_balanced_part_and_the_same_command_the_same(bench, tmp_path, monkeypatch, capsys):
    def costs(plan, store):
        drawn = store.rows("select count(*) as n from samples")[0]["n"]
        known = {"painter": 1.0, "other": 1.0}
        return Costs(known if drawn else {}, {}, 0.0)

    monkeypatch.setattr(run, "measured", costs)
    words = ["--methods", "painter,other", "--subjects", "all", "--prompts", "all", "--budget", "9s"]
    assert bench(*words, "--dry-run") == 0
    assert "a run measures it first" in capsys.readouterr().out
    assert bench(*words) == 0
    assert "budget    9 s: 2 subjects, 0 pairs, 2 prompts of each" in capsys.readouterr().out
    query = (
        "select method, count(*) as n, count(distinct case_id) as cases from results where metric = 'dino' group by 1"
    )
    with OpenAnswers(tmp_path / "reports") as answers:
        assert sorted(row["n"] for row in answers.rows(query)) == [4, 4]
    drawn = len(Painter.drawn)
    monkeypatch.setattr(run, "measured", lambda plan, store: Costs({"painter": 9.0, "other": 9.0}, {}, 0.0))
    assert bench(*words) == 0 and len(Painter.drawn) == drawn  # dearer by now: the part stays


@pytest.mark.skipif(not DREAMBENCH.is_dir(), reason="DreamBench is not there")
def test_a_dry_run_of_dreambench_names_its_subjects_and_prompts(tmp_path, capsys):
    words = ["--methods", "sd", "--suite", "dreambench", "--suite-path", str(DREAMBENCH), "--dry-run"]
    assert run.main([*words, "--subjects", "all", "--prompts", "all", "--output", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "subjects  30: " in told and "backpack_dog" in told and "prompts   25 a case" in told
    assert re.search(r"sd +750 +750", told)


def test_ids_of_runs_are_what_they_were_before_there_was_more_to_ask_for():
    from umm_bench.bench.selection import Request

    assert Request(methods=("sd", "umm")).run_id == "run-48e1517229"
    assert Request(methods=("sd", "umm"), dtype="bfloat16").run_id != "run-48e1517229"
