"""What a build leaves behind when it is killed, when the disk is full or read-only: nothing that is damaged."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from curation import BuildConfig, UserError, build_pairs, make_plan, run
from curation.build import main
from tests.curation.conftest import EveryPhraseGrounder, row, write_tar
from tests.curation.test_build import comparable, config, files


def build_and_tell(build: BuildConfig, begun: int) -> None:
    for _ in run(make_plan(build, EveryPhraseGrounder()), EveryPhraseGrounder()):
        os.write(begun, b".")
    os._exit(0)


def kill_at_random(build: BuildConfig, seconds: float, rng: random.Random) -> int:
    """Kills a build at some moment of the ``seconds`` after its first progress; gives its exit code."""
    reader, writer = os.pipe()
    process = multiprocessing.get_context("fork").Process(target=build_and_tell, args=(build, writer))
    process.start()
    os.close(writer)
    os.read(reader, 1)
    time.sleep(rng.uniform(0, seconds))
    process.kill()
    process.join()
    os.close(reader)
    assert process.exitcode is not None
    return process.exitcode


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments_a_build_ends_as_if_it_had_not_been(tmp_path: Path, grounder, kills: int):
    corpus = tmp_path / "corpus"
    for shard in range(6):
        write_tar(corpus / f"{shard:05d}.tar", [row(index, shard) for index in range(5)], shard)
    write_tar(corpus / "00006.tar", [row(2, 0), row(3, 1), row(7, 6)], 6)  # duplicates across shards: a late rewrite
    whole = tmp_path / "whole"
    progress = run(make_plan(config(corpus, whole), grounder), grounder)
    next(progress)
    began = time.monotonic()
    for _ in progress:
        pass
    seconds = time.monotonic() - began

    rng, killed = random.Random(kills), 0
    for attempt in range(kills):
        build = config(corpus, tmp_path / f"killed{attempt}")
        killed += kill_at_random(build, seconds, rng) == -signal.SIGKILL
        build_pairs(build, grounder)
        assert comparable(tmp_path / f"killed{attempt}") == comparable(whole)
        assert not list((tmp_path / f"killed{attempt}").rglob("*.tmp"))
    assert killed >= kills // 2  # the others were faster than the signal


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no right to mount a small disk here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_clear_error_and_the_build_goes_on_later(corpus: Path, small_disk: Path, grounder):
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 300_000)
    build = config(corpus, small_disk / "out")
    with pytest.raises(UserError, match="No space left on device; finished shards are kept"):
        build_pairs(build, grounder)
    assert not list(small_disk.rglob("*.tmp"))
    # Room again: the same command ends well.
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    assert build_pairs(build, grounder).tally.pairs == 72


def test_a_read_only_disk_is_one_clear_error(corpus: Path, small_disk: Path, tiny_detector: Path, capsys):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    arguments = ["--input", str(corpus), "--output", str(small_disk / "out"), "--detector", str(tiny_detector)]
    assert main([*arguments, "--device", "cpu"]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and "Read-only file system" in error[0]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_error_at_any_write_leaves_what_was_finished(
    corpus: Path, tmp_path: Path, grounder, monkeypatch, number: int
):
    """Without a mount: every rename from the third on fails."""
    whole = tmp_path / "whole"
    build_pairs(config(corpus, whole), grounder)
    real, calls = os.replace, []

    def replace(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) > 3:
            raise OSError(number, os.strerror(number))
        real(source, target)

    build = config(corpus, tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr("curation.output.writer.os.replace", replace)
        with pytest.raises(UserError, match=os.strerror(number)):
            build_pairs(build, grounder)
    assert not list((tmp_path / "out").rglob("*.tmp"))
    assert set(files(tmp_path / "out")) == {str(path.relative_to(tmp_path / "out")) for path in calls[:3]}
    build_pairs(build, grounder)
    assert comparable(tmp_path / "out") == comparable(whole)


def test_an_output_below_a_file_is_one_clear_error(corpus: Path, tmp_path: Path, grounder):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot write there"):
        build_pairs(config(corpus, tmp_path / "file" / "out"), grounder)


def test_a_second_command_in_the_same_folder_ends_with_2(corpus: Path, tmp_path: Path, tiny_detector: Path, capsys):
    arguments = ["--input", str(corpus), "--output", str(tmp_path / "out"), "--detector", str(tiny_detector)]
    from curation.output.writer import locked

    with locked(tmp_path / "out"):
        assert main([*arguments, "--device", "cpu"]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and "another build is running there" in error[0]
