"""Files and folders appear whole or not at all, also where two processes make the same one at once."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from pathlib import Path

import pytest

import atomic
from atomic import replace_folder, whole_file, whole_folder
from umm_bench.mini.world import corpus, suite


def test_a_file_has_its_name_when_it_is_whole(tmp_path: Path):
    path = tmp_path / "new" / "a.txt"
    with whole_file(path) as unfinished:
        unfinished.write_text("one")
        assert not path.exists() and unfinished.parent == path.parent
    with pytest.raises(RuntimeError), whole_file(path) as unfinished:
        unfinished.write_text("half")
        raise RuntimeError
    assert path.read_text() == "one" and os.listdir(path.parent) == ["a.txt"]


def test_a_folder_has_its_name_when_it_is_whole(tmp_path: Path):
    path = tmp_path / "new" / "set"
    for text in ("one", "two"):
        with whole_folder(path) as unfinished:
            (unfinished / f"{text}.txt").write_text(text)
    with pytest.raises(RuntimeError), whole_folder(path) as unfinished:
        (unfinished / "half.txt").write_text("half")
        raise RuntimeError
    assert os.listdir(path) == ["two.txt"] and os.listdir(path.parent) == ["set"]


def test_what_another_made_meanwhile_stays_where_it_is_whole(tmp_path: Path):
    path = tmp_path / "set"

    def is_whole(folder: Path) -> bool:
        return (folder / "end").exists()

    for others, kept in ((["end", "theirs"], "theirs"), (["theirs"], "ours")):
        shutil.rmtree(path, ignore_errors=True)
        with whole_folder(path, is_whole) as unfinished:
            (unfinished / "ours").touch()
            path.mkdir()  # another was faster
            for name in others:
                (path / name).touch()
        assert (path / kept).exists() and not (tmp_path / "set.old").exists()
    assert os.listdir(tmp_path) == ["set"]


def test_another_that_comes_between_the_two_moves_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, made = tmp_path / "set", tmp_path / "made"
    for folder in (path, made):
        folder.mkdir()
        (folder / folder.name).touch()
    real, calls = os.replace, []

    def late(source: Path, target: Path) -> None:
        real(source, target)
        calls.append(target)
        if len(calls) == 1:  # the old one is out of the way; another puts its own there
            path.mkdir()
            (path / "theirs").touch()

    monkeypatch.setattr(os, "replace", late)
    replace_folder(made, path)
    assert os.listdir(path) == ["made"] and os.listdir(tmp_path) == ["set"]


def test_only_old_leftovers_are_removed(tmp_path: Path):
    fresh, stale, other = (tmp_path / name for name in ("set.0123abcd.tmp", "set.89abcdef.tmp", "sets.89abcdef.tmp"))
    for folder in (fresh, stale, other):
        folder.mkdir()
        then = time.time() - atomic.LEFTOVER_SECONDS - 60
        os.utime(folder, None if folder is fresh else (then, then))
    with whole_folder(tmp_path / "set"):
        pass
    assert sorted(os.listdir(tmp_path)) == ["set", fresh.name, other.name]


def make(kind: str, folder: Path, barrier, failures) -> None:
    try:
        barrier.wait()
        suite.build(folder) if kind == "suite" else corpus.build(folder, 8)
        failures.put(None)
    except BaseException as error:
        failures.put(repr(error))


@pytest.mark.parametrize("kind", ["corpus", "suite"])
def test_first_runs_at_once_leave_one_whole_folder(tmp_path: Path, kind: str):
    context = multiprocessing.get_context("fork")
    barrier, failures = context.Barrier(2), context.Queue()
    runs = [context.Process(target=make, args=(kind, tmp_path / "made", barrier, failures)) for _ in range(2)]
    for process in runs:
        process.start()
    assert [failures.get(timeout=120) for _ in runs] == [None, None]
    for process in runs:
        process.join()
    whole = suite.is_whole(tmp_path / "made") if kind == "suite" else (tmp_path / "made" / "00000.tar").stat().st_size
    assert whole and os.listdir(tmp_path) == ["made"]


@pytest.mark.parametrize("damage", ["00000.tar", "00000.parquet", "urls.parquet", "truth/truth.parquet", "corpus.json"])
@pytest.mark.parametrize("how", ["gone", "cut"])
def test_a_corpus_is_checked_before_it_is_reused(tmp_path: Path, damage: str, how: str):
    folder = corpus.build(tmp_path / "laion", 4)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    file = folder / damage
    file.unlink() if how == "gone" else file.write_bytes(file.read_bytes()[:-9])
    assert corpus.build(folder, 4) == folder
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before


def test_a_whole_corpus_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = corpus.build(tmp_path / "laion", 4)
    suite_folder = suite.build(tmp_path / "suite")
    monkeypatch.setattr(corpus, "row", lambda *_: pytest.fail("drawn again"))
    monkeypatch.setattr(suite, "reference", lambda *_: pytest.fail("drawn again"))
    assert corpus.build(folder, 4) == folder and suite.build(suite_folder) == suite_folder


def test_a_suite_is_checked_before_it_is_reused(tmp_path: Path):
    folder = suite.build(tmp_path / "suite")
    picture = sorted(folder.rglob("*.png"))[3]
    content = picture.read_bytes()
    for damage in (picture.unlink, lambda: picture.write_bytes(b""), lambda: shutil.rmtree(picture.parent)):
        damage()
        assert suite.build(folder) == folder and picture.read_bytes() == content
