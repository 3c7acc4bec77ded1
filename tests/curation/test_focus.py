"""A build for named concepts: what names them is mined, the rest has its reason, quotas hold in every shard."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curation import BuildConfig, UserError, build_pairs, make_plan
from curation.build import main
from curation.language.focus import Focus, read_focus
from curation.records import Phrase
from tests.curation.conftest import row, write_tar


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Two shards of eight rows: every other one of a polar bear, the others of a red fox."""
    for shard in range(2):
        said = ["a polar bear on snow", "a red fox on grass"]
        rows = [row(i, shard, json_caption=said[i % 2]) for i in range(8)]
        write_tar(tmp_path / "corpus" / f"{shard:05d}.tar", rows, shard)
    return tmp_path / "corpus"


def config(corpus: Path, output: Path, focus: Path, **changes) -> BuildConfig:
    return BuildConfig(input=str(corpus), output=str(output), focus=str(focus), device="cpu", **changes)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def captions(output: Path) -> list[str]:
    return [caption for file in sorted((output / "data").glob("*.parquet"))
            for caption in pq.read_table(file)["caption"].to_pylist()]  # fmt: skip


def test_only_rows_that_name_the_concept_are_mined(mixed, tmp_path, grounder):
    focus = write(tmp_path / "focus.txt", "# what is rare\nPolar  Bear # lacking most\n\n")
    result = build_pairs(config(mixed, tmp_path / "out", focus), grounder)
    assert set(captions(tmp_path / "out")) == {"a polar bear on snow"}
    assert result.tally.rows_kept == 8 and result.tally.row_reasons["not_in_focus"] == 8
    assert result.tally.rows_read == result.tally.rows_kept + result.tally.row_reasons.total()


def test_a_quota_holds_in_each_shard_whatever_the_workers(mixed, tmp_path, grounder):
    focus = write(tmp_path / "focus.txt", "bear,3\nfox")
    alone = build_pairs(config(mixed, tmp_path / "a", focus, focus_quota=1), grounder)
    assert captions(tmp_path / "a").count("a red fox on grass") == 2  # one a shard
    assert alone.tally.rows_kept == 2 * (3 + 1) and alone.tally.row_reasons["focus_quota_reached"] == 2 * (1 + 3)
    with_limit = build_pairs(config(mixed, tmp_path / "b", focus, focus_quota=1, batch_size=3), grounder)
    assert with_limit.tally.to_json() == alone.tally.to_json() and captions(tmp_path / "a") == captions(tmp_path / "b")


def test_what_is_asked_for_belongs_to_the_build(mixed, tmp_path, grounder):
    focus = write(tmp_path / "focus.txt", "bear")
    asked = config(mixed, tmp_path / "out", focus)
    build_pairs(asked, grounder)
    moved = write(tmp_path / "moved.txt", "# the same\nBear\n")
    assert make_plan(replace(asked, focus=str(moved)), grounder).complete  # by content, wherever it lies
    with pytest.raises(UserError, match="--focus"):
        make_plan(replace(asked, focus=str(write(tmp_path / "other.txt", "fox"))), grounder)
    with pytest.raises(UserError, match="--focus"):
        make_plan(replace(asked, focus=None), grounder)


def test_a_row_counts_once_however_often_it_is_asked_about():
    bear, focus = Phrase("a bear", 0, 6, "bear", "bear", "bear"), Focus("bear\n", 1)
    focus.check("row-1", [bear])
    focus.check("row-1", [bear])
    with pytest.raises(Exception, match="focus_quota_reached"):
        focus.check("row-2", [bear])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("bear\tmany", "line 1: write a concept"),
        ("fox\nbear\t0", "line 2: write a concept"),
        ("\t5", "line 1: write a concept"),
        ("# nothing\n\n", "names no concept"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_not_as_it_should_be(text, says, tmp_path, capsys):
    path = tmp_path / "focus.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=says):
        read_focus(path)
    assert main(["--focus", str(path), "--output", str(tmp_path / "out")]) == 2
    assert says in capsys.readouterr().err


def test_a_quota_alone_says_what_is_missing(tmp_path, capsys):
    assert main(["--focus-quota", "3", "--output", str(tmp_path / "out")]) == 2
    assert "--focus-quota bounds the concepts of --focus" in capsys.readouterr().err
