"""--focus: only rows that name a concept, quotas that hold for the whole build however it was made, bad files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from curation import UserError, build_pairs, make_plan, run
from curation.build import main
from curation.focus import Focus, Quota, read_focus
from tests.curation.test_build import check_law, comparable, config, rows_of

# The corpus' captions: "a <subject k> next to a <subject k+1> on a table", eight rows in each of three shards.


def focused(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def concepts_of(folder: Path) -> Counter:
    return Counter(row["concept"] for row in rows_of(folder))


def test_only_rows_that_name_a_concept_are_mined_with_their_other_phrases(corpus, tmp_path, grounder):
    whole = build_pairs(config(corpus, tmp_path / "whole"), grounder)
    named = {row["caption"] for row in rows_of(tmp_path / "whole") if row["concept"] in ("fox", "chair")}
    asked = config(corpus, tmp_path / "out", focus=focused(tmp_path / "f", "# rare\nRed Fox\n\nchair\n"))
    tally = build_pairs(asked, grounder).tally
    check_law(tally)
    rows = rows_of(tmp_path / "out")
    assert {row["caption"] for row in rows} == named and any(row["concept"] == "table" for row in rows)
    expected = [row for row in rows_of(tmp_path / "whole") if row["caption"] in named]
    assert rows == expected and tally.row_reasons["caption_out_of_focus"] == whole.tally.rows_kept - tally.rows_kept


def test_a_quota_holds_over_all_shards_and_its_surplus_is_counted(corpus, tmp_path, grounder):
    path = focused(tmp_path / "f", "fox,3\nchair\n")
    tally = build_pairs(config(corpus, tmp_path / "out", focus=path, focus_quota=2), grounder).tally
    check_law(tally)
    found = concepts_of(tmp_path / "out")
    assert (found["fox"], found["chair"]) == (3, 2)
    assert tally.row_reasons["row_over_quota"] > 0 and "duplicate_across_shards" not in tally.row_reasons
    every = focused(tmp_path / "g", "fox\nchair")
    unbounded = build_pairs(config(corpus, tmp_path / "all", focus=every), grounder)
    assert unbounded.tally.rows_kept == tally.rows_kept + tally.row_reasons["row_over_quota"]
    kept = [row["id"] for row in rows_of(tmp_path / "out") if row["concept"] == "chair"]
    assert kept == [row["id"] for row in rows_of(tmp_path / "all") if row["concept"] == "chair"][:2]  # the first ones


def test_a_build_killed_at_its_end_counts_as_one_that_was_not(corpus, tmp_path, grounder, monkeypatch):
    from curation.output import finish

    path = focused(tmp_path / "f", "fox\nchair")
    build_pairs(config(corpus, tmp_path / "whole", focus=path, focus_quota=1), grounder)
    real, calls = finish.rewrite, []

    def killed(*arguments):
        calls.append(arguments)
        real(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(finish, "rewrite", killed)
    asked = config(corpus, tmp_path / "out", focus=path, focus_quota=1)
    for _ in range(2):  # each time one more shard is rewritten
        with pytest.raises(KeyboardInterrupt):
            list(run(make_plan(asked, grounder), grounder))
    assert len(calls) == 2
    monkeypatch.setattr(finish, "rewrite", real)
    build_pairs(asked, grounder)
    assert comparable(tmp_path / "out") == comparable(tmp_path / "whole")


def test_workers_and_shards_in_any_order_give_the_same(corpus, tmp_path, grounder):
    path = focused(tmp_path / "f", "fox\nbird")
    build_pairs(config(corpus, tmp_path / "one", focus=path, focus_quota=2), grounder)
    plan = make_plan(config(corpus, tmp_path / "two", focus=path, focus_quota=2), grounder)
    backwards = plan.tasks()[::-1]
    object.__setattr__(plan, "tasks", lambda: backwards)
    list(run(plan, grounder))
    assert comparable(tmp_path / "one") == comparable(tmp_path / "two")


def test_a_phrase_counts_for_the_longest_concept_that_it_names():
    focus = Focus({"bear": 1, "polar bear": None, "map of japan": None, "berries": None})
    assert focus.named("a white polar bear", "bear", "bear", "polar bear") == "polar bear"
    assert focus.named("two polar-bears", "polar-bears", "polar-bear", "polar-bears") == "polar bear"
    assert focus.named("brown bears", "bears", "bear", "bears") == "bear"
    assert focus.named("a map of Japan", "map", "map", "map of Japan") == "map of japan"
    assert focus.named("red berries", "berries", "berry", "berries") == "berries"
    assert focus.named("a beard", "beard", "beard", "beard") is None
    quota = Quota(focus)
    bear, dog = ("a bear", "bear", "bear", "bear"), ("a dog", "dog", "dog", "dog")
    assert quota.choose([bear, dog]) == [True, True]
    assert quota.choose([bear, dog]) == [False, False]  # the row was there for its bear
    assert quota.choose([dog]) == [True]  # its bear was found nowhere


def test_no_file_no_focus(corpus, tmp_path, grounder):
    assert read_focus(config(corpus, tmp_path)) is None
    first = make_plan(config(corpus, tmp_path / "out"), grounder).head["fingerprint"]
    path = focused(tmp_path / "f", "fox")
    with_focus = make_plan(config(corpus, tmp_path / "out", focus=path), grounder).head["fingerprint"]
    assert first != with_focus
    moved = focused(tmp_path / "g", "# the same\n fox \n")
    assert make_plan(config(corpus, tmp_path / "out", focus=moved), grounder).head["fingerprint"] == with_focus
    bounded = config(corpus, tmp_path / "out", focus=path, focus_quota=5)
    assert make_plan(bounded, grounder).head["fingerprint"] != with_focus


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "names no concept"),
        (b"# only this\n", "names no concept"),
        (b"fox\n,3\n", "line 2: '' is no concept"),
        (b"fox, many", "line 1: quota 'many' is no whole number"),
        (b"fox\t0", "quota '0'"),
        (b"fox,1,2", "quota '1,2'"),
        (b"fox\nFOX", "line 2: fox is there twice"),
        (b"a very big red fox", "more than 3 words"),
        (b"\xff\xfe", "no UTF-8 text"),
        (None, "No such file"),
    ],
)
def test_a_bad_file_is_one_line(content, words, corpus, tmp_path, capsys):
    path = tmp_path / "focus.txt"
    if content is not None:
        path.write_bytes(content)
    assert main(["--input", str(corpus), "--output", str(tmp_path / "out"), "--focus", str(path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: --focus") and err.count("\n") == 1 and words in err
    assert not (tmp_path / "out").exists()


def test_a_quota_without_a_file_is_one_line(corpus, tmp_path):
    with pytest.raises(UserError, match="give that too"):
        config(corpus, tmp_path, focus_quota=3)
