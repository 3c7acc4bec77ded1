"""--focus: only rows that name a concept, quotas that hold for the whole build however it was made, bad files."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from curation import UserError, build_pairs, make_plan, pipeline, run
from curation.build import main
from curation.config import BY_CONTENT, FORMAT_VERSION
from curation.language.focus import Focus, Quota
from curation.vision.images import decode
from tests.curation.conftest import row, write_tar
from tests.curation.test_build import check_law, comparable, config, rows_of

# The corpus' captions: "a <subject k> next to a <subject k+1> on a table", eight rows in each of three shards.


def focused(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def concepts_of(folder: Path) -> Counter:
    return Counter(pair["concept"] for pair in rows_of(folder))


def test_only_rows_that_name_a_concept_are_mined_with_their_other_phrases(corpus, tmp_path, grounder):
    whole = build_pairs(config(corpus, tmp_path / "whole"), grounder)
    named = {pair["caption"] for pair in rows_of(tmp_path / "whole") if pair["concept"] in ("fox", "chair")}
    asked = config(corpus, tmp_path / "out", focus=focused(tmp_path / "f", "# rare\nRed Fox\n\nchair\n"))
    tally = build_pairs(asked, grounder).tally
    check_law(tally)
    rows = rows_of(tmp_path / "out")
    assert {pair["caption"] for pair in rows} == named and any(pair["concept"] == "table" for pair in rows)
    expected = [pair for pair in rows_of(tmp_path / "whole") if pair["caption"] in named]
    assert rows == expected and tally.row_reasons["not_in_focus"] == whole.tally.rows_kept - tally.rows_kept


def test_a_quota_holds_over_all_shards_and_its_surplus_is_counted(corpus, tmp_path, grounder):
    path = focused(tmp_path / "f", "fox,3\nchair\n")
    tally = build_pairs(config(corpus, tmp_path / "out", focus=path, focus_quota=2), grounder).tally
    check_law(tally)
    found = concepts_of(tmp_path / "out")
    assert (found["fox"], found["chair"]) == (3, 2)
    assert tally.row_reasons["focus_quota_reached"] > 0 and "duplicate_across_shards" not in tally.row_reasons
    every = focused(tmp_path / "g", "fox\nchair")
    unbounded = build_pairs(config(corpus, tmp_path / "all", focus=every), grounder)
    assert unbounded.tally.rows_kept == tally.rows_kept + tally.row_reasons["focus_quota_reached"]
    kept = [pair["id"] for pair in rows_of(tmp_path / "out") if pair["concept"] == "chair"]
    assert (
        kept == [pair["id"] for pair in rows_of(tmp_path / "all") if pair["concept"] == "chair"][:2]
    )  # the first ones


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


def test_what_is_asked_for_belongs_to_the_build(corpus, tmp_path, grounder):
    asked = config(corpus, tmp_path / "out", focus=focused(tmp_path / "f", "bear\nfox"))
    build_pairs(asked, grounder)
    moved = focused(tmp_path / "g", "# the same\n  Bear # lacking most\nfox\n")
    assert make_plan(replace(asked, focus=moved), grounder).complete  # by content, wherever it lies
    for other in ({"focus": focused(tmp_path / "h", "fox")}, {"focus": None}, {"focus_quota": 5}):
        with pytest.raises(UserError, match="--focus"):
            make_plan(replace(asked, **other), grounder)


def test_a_build_of_everything_is_the_one_that_it_was_before_there_was_focus(corpus, tmp_path):
    without = {name: value for name, value in config(corpus, tmp_path).to_json().items() if "focus" not in name}
    settings = {name: value for name, value in without.items() if name not in BY_CONTENT}
    whole = {"format": FORMAT_VERSION, "config": settings, "shards": [], "detector": "d"}
    known = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]
    assert config(corpus, tmp_path).fingerprint(shards=[], detector_id="d") == known


def test_what_has_long_been_full_is_turned_away_before_it_is_opened_or_downloaded(tmp_path, grounder, monkeypatch):
    """And what is turned away does not depend on how fast the detector is."""
    monkeypatch.setattr(pipeline, "CHUNK_ROWS", 1)
    write_tar(tmp_path / "in" / "0.tar", [row(6 * i) for i in range(30)])  # all of one fox and one car
    opened = []
    monkeypatch.setattr(pipeline, "decode", lambda *given: opened.append(1) or decode(*given))
    asked = {"focus": focused(tmp_path / "f", "fox,2")}
    build_pairs(config(tmp_path / "in", tmp_path / "a", **asked), grounder)
    assert len(opened) <= 2 + pipeline.CHUNKS_BEHIND + 3  # three are opened again, as examples for the report

    class Slow:
        def ground(self, *given):
            time.sleep(0.02)
            return grounder.ground(*given)

    Slow.__module__, Slow.__qualname__ = type(grounder).__module__, type(grounder).__qualname__
    build_pairs(config(tmp_path / "in", tmp_path / "b", **asked), Slow())
    assert comparable(tmp_path / "a") == comparable(tmp_path / "b")


def test_duplicates_and_quotas_are_told_apart(tmp_path, grounder):
    rows = [row(0), row(6), row(12)]
    write_tar(tmp_path / "in" / "0.tar", rows[:2])
    write_tar(tmp_path / "in" / "1.tar", rows[1:], shard=1)
    asked = config(tmp_path / "in", tmp_path / "out", focus=focused(tmp_path / "f", "fox,2"))
    tally = build_pairs(asked, grounder).tally
    check_law(tally)
    assert tally.rows_kept == 2
    assert tally.row_reasons == {"duplicate_across_shards": 1, "focus_quota_reached": 1}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "names no concept"),
        (b"# only this\n", "names no concept"),
        (b"fox\n,3\n", "line 2: write a concept"),
        (b"fox, many", "line 1: write a concept"),
        (b"fox\t0", "line 1: write a concept"),
        (b"fox,1,2", "line 1: write a concept"),
        (b"fox\nFOX,2", "line 2: 'fox' is there twice"),
        (b"a very big red fox", "more than 3 words"),
        (b"\xff\xfe", "not text in UTF-8"),
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


def test_a_quota_without_a_file_is_one_line(tmp_path, capsys):
    assert main(["--focus-quota", "3", "--output", str(tmp_path / "out")]) == 2
    assert "--focus-quota bounds the concepts of --focus" in capsys.readouterr().err
