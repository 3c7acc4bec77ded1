"""Cases of several subjects, and what cannot be drawn, through the whole command."""

import json

import pytest

from tests.bench.bench_fakes import Painter
from tests.bench.test_bench_run import query
from umm_bench.bench.failures import find_failures
from umm_bench.seeding import sample_seed


def test_pairs_are_drawn_scored_and_never_averaged_with_single_subjects(bench, tmp_path):
    assert bench("--methods", "painter,set", "--pairs", "1") == 0
    drawn = query(tmp_path, "select method, case_id, subject_count, count(*) from samples group by all order by all")
    assert drawn == [
        (method, *case) for method in ("painter", "set")
        for case in (("blue-cup", 1, 2), ("red-fox", 1, 2), ("red-fox+blue-cup", 2, 2))
    ]  # fmt: skip
    places = query(tmp_path, "select distinct place, subject, class_noun from sample_subjects order by all")
    assert places == [(1, "blue-cup", "cup"), (1, "red-fox", "fox"), (2, "blue-cup", "cup")]
    assert query(tmp_path, "select distinct prompt from samples where subject_count = 2 order by all") == [
        ("a cup above a fox",),
        ("a fox next to a cup",),
    ]
    counts = "select metric, subject_count, samples from summaries where method = 'painter' order by all"
    whole = [(metric, n, 4 if n == 1 else 2) for metric in ("background", "clip_t") for n in (1, 2)]
    of_subjects = ("clip_i", "concept", "dino", "gallery_rank", "gallery_reciprocal_rank", "identity")
    each = [(metric, n, 4) for metric in of_subjects for n in (1, 2)]
    labels = ("", "_blending", "_dominance", "_drift", "_missing", "_swap")
    assert query(tmp_path, counts) == sorted(whole + each + [(f"several{label}", 2, 4) for label in labels])
    about = query(
        tmp_path, "select distinct subject from results where metric = 'dino' and subject_count = 2 order by 1"
    )
    assert about == [("blue-cup",), ("red-fox",)]


def test_a_setup_for_subjects_is_shared_by_their_pairs_and_one_for_the_case_is_not(bench, tmp_path):
    assert bench("--methods", "painter,set", "--pairs", "1") == 0
    setups = query(tmp_path, "select method, case_id from setups order by all")
    assert setups == [
        ("painter", "blue-cup"), ("painter", "red-fox"), ("set", "blue-cup"), ("set", "red-fox"),
        ("set", "red-fox+blue-cup"),
    ]  # fmt: skip
    used = "select count(distinct setup_key) from sample_subjects join samples using (sample_key) where subject_count=2"
    assert query(tmp_path, f"{used} and method = 'painter'") == [(2,)]
    assert query(tmp_path, f"{used} and method = 'set'") == [(1,)]


def test_a_pair_has_seeds_of_its_own_which_methods_share(bench, tmp_path):
    assert (
        bench("--methods", "painter,set", "--subjects", "0", "--pairs", "red-fox+blue-cup", "--prompts", "beside") == 0
    )
    seed = sample_seed(0, "red-fox+blue-cup", "beside", 0)
    assert query(tmp_path, "select method, seed from samples order by all") == [("painter", seed), ("set", seed)]


def test_a_run_with_pairs_goes_on_and_then_makes_nothing(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(Painter, "fail_after", 5)
    assert bench("--methods", "painter", "--pairs", "1") == 130
    monkeypatch.setattr(Painter, "fail_after", None)
    for _ in range(2):
        assert bench("--methods", "painter", "--pairs", "1") == 0
    assert len(Painter.drawn) == len(set(Painter.drawn)) == 6
    # After the stop only the pair had something to draw, and its subjects were found as they were left.
    assert Painter.set_up[-2:] == [("red-fox", True), ("blue-cup", True)] and len(Painter.set_up) == 5


def test_a_method_of_one_subject_is_skipped_for_pairs_and_says_so(bench, tmp_path, capsys):
    assert bench("--methods", "painter,other", "--pairs", "1") == 0
    assert "other: single subject only" in capsys.readouterr().out
    rows = query(tmp_path, "select method, case_id, status, stage, reason from undrawn")
    assert rows == [("other", "red-fox+blue-cup", "skipped", "plan", "single subject only")] * 2
    assert query(tmp_path, "select distinct subject_count from summaries where method = 'other'") == [(1,)]
    assert query(tmp_path, "select count(*) from failures where sample_key in (select sample_key from undrawn)") == [
        (0,)
    ]


def test_what_fails_is_a_row_with_its_reason_and_ends_nothing(bench, tmp_path, capsys):
    words = ["--methods", "fussy,painter", "--subjects", "3", "--prompts", "3", "--pairs", "2", "--batch-size", "2"]
    assert bench(*words) == 1
    out = capsys.readouterr().out
    rows = query(tmp_path, "select stage, case_id, prompt_id, status, reason from undrawn order by all")
    owl, snow, hat = "owls do not sit still", "too cold", "IndexError: no hat in store"
    assert rows == sorted([
        *(("generate", subject, "hat", "failed", hat) for subject in ("blue-cup", "red-fox")),
        *(("plan", subject, "snow", "failed", snow) for subject in ("blue-cup", "green-owl", "red-fox")),
        *(("setup", "green-owl", prompt, "failed", owl) for prompt in ("beach", "hat")),
        *(("setup", "blue-cup+green-owl", prompt, "failed", owl) for prompt in ("beside", "over")),
    ])  # fmt: skip
    assert query(tmp_path, "select method, count(*) from samples group by all order by all") == [
        ("fussy", 4),
        ("painter", 13),
    ]
    assert f"failed    fussy: 4 images (as green-owl, prompt beach): {owl}\n" in out and f": {hat}\n" in out
    # Once by each method: what failed is not set up again for the pair.
    assert Painter.set_up.count(("green-owl", False)) == 2
    tried = len(Painter.set_up)
    assert bench(*words) == 1
    assert len(Painter.set_up) == tried and query(tmp_path, "select count(*) from undrawn") == [(9,)]


def test_a_method_says_what_it_wrote_into_the_prompt(bench, tmp_path):
    assert bench("--methods", "fussy", "--subjects", "1", "--prompts", "beach,over", "--pairs", "1") == 0
    prompts = query(tmp_path, "select prompt, method_prompt from samples order by all")
    assert prompts[0] == ("a cup above a fox", "a fussy cup above a fussy fox")
    assert ("a fox on the beach", "a fussy fox on the beach") in prompts


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--pairs", "red-fox+blue-cop"], "did you mean 'red-fox+blue-cup'"),
        (["--subjects", "0"], "--subjects and --pairs ask for none"),
        (["--pairs", "1", "--prompts", "beach"], "no prompt for red-fox+blue-cup"),
    ],
)
def test_a_pair_that_is_not_there_is_one_line(bench, capsys, words, says):
    assert bench("--methods", "painter", *words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and says in error


def test_a_pair_that_nobody_drew_is_missing_twice_and_is_a_failure_with_its_evidence(bench, tmp_path, capsys):
    """A picture of one colour has nobody in it."""
    assert bench("--methods", "painter", "--subjects", "1", "--pairs", "1", "--prompts", "beside,beach") == 0
    rows = query(tmp_path, "select subject, value, explanation, metadata_json from results where metric = 'several'")
    assert sorted(row[:3] for row in rows) == [
        ("blue-cup", 0.0, "no cup is found"),
        ("red-fox", 0.0, "no fox is found"),
    ]
    assert all(json.loads(row[3])["label"] == "missing" for row in rows)
    rates = dict(query(tmp_path, "select metric, mean from summaries where metric like 'several%'"))
    assert rates["several_missing"] == 1 and sum(rates.values()) == 1
    ((reason, evidence),) = query(tmp_path, "select reason, evidence_json from failures where kind = 'missing'")
    assert reason == "missing: blue-cup: no cup is found; missing: red-fox: no fox is found"
    subjects = json.loads(evidence)["subjects"]
    assert {name: told["label"] for name, told in subjects.items()} == dict.fromkeys(("blue-cup", "red-fox"), "missing")
    assert "what became of the subjects" in capsys.readouterr().out


def row_of(key, subject, label, margin=None):
    evidence = json.dumps({"label": label, "margin": margin})
    return {
        "method": "m", "sample_key": key, "metric": "several", "subject": subject, "value": float(label == "right"),
        "explanation": f"it is {label}", "metadata_json": evidence,
    }  # fmt: skip


def test_failures_of_pairs_go_by_the_gravest_label_and_each_kind_comes_up():
    rows = [row_of("fine", "a", "right"), row_of("fine", "b", "right")]
    rows += [row_of("gone", "a", "drift", 0.3), row_of("gone", "b", "missing")]
    rows += [row_of(f"mixed{n}", "a", "blending", 0.1 * n) for n in range(12)]
    rows += [row_of(f"mixed{n}", "b", "right", 0.5) for n in range(12)]
    rows += [row_of("swap", "a", "swap", -0.3), row_of("swap", "b", "swap", -0.2)]
    found = find_failures(rows, limit=5)
    assert [(row["sample_key"], row["kind"], row["rank"]) for row in found] == [
        ("gone", "missing", 1), ("swap", "swap", 2), ("mixed0", "blending", 3), ("mixed1", "blending", 4),
        ("mixed2", "blending", 5),
    ]  # fmt: skip
    assert found[0]["reason"] == "drift: a: it is drift; missing: b: it is missing"
    assert found == find_failures(rows[::-1], limit=5)
