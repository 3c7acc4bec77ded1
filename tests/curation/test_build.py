from __future__ import annotations

import io
import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from curation import BuildConfig, UserError, build_pairs, make_plan, run
from curation.build import main
from tests.curation.conftest import EveryPhraseGrounder, encoded, picture, row, write_tar


def config(corpus: Path, output: Path, **changes) -> BuildConfig:
    return BuildConfig(input=str(corpus), output=str(output), device="cpu", **changes)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def comparable(folder: Path) -> dict[str, bytes]:
    """The manifest names its own folder."""
    return {name: data.replace(str(folder).encode(), b"OUT") for name, data in files(folder).items()}


def rows_of(folder: Path) -> list[dict]:
    return [row for path in sorted((folder / "data").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def check_law(tally) -> None:
    assert tally.rows_read == tally.rows_kept + sum(tally.row_reasons.values())
    assert tally.phrases == tally.pairs + sum(tally.phrase_reasons.values())


def test_a_build_opens_in_datasets_and_its_rows_agree(corpus: Path, tmp_path: Path, grounder, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    output = tmp_path / "out"
    result = build_pairs(config(corpus, output), grounder)
    check_law(result.tally)
    assert result.tally.rows_read == result.tally.rows_kept == 24
    assert result.tally.pairs == 72  # three phrases a caption

    import datasets

    by_folder = datasets.load_dataset(str(output), split="train", cache_dir=str(tmp_path / "cache"))
    by_file = datasets.load_dataset(
        "parquet", data_files=str(output / "data" / "*.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert by_folder.num_rows == by_file.num_rows == 72
    raw = rows_of(output)
    assert len({r["id"] for r in raw}) == 72
    for loaded, stored in zip(by_folder, raw, strict=True):
        assert loaded["caption"][loaded["phrase_start"] : loaded["phrase_end"]] == loaded["phrase"]
        assert isinstance(loaded["image"], Image.Image) and loaded["image"].size == (loaded["width"], loaded["height"])
        x0, _, x1, _ = loaded["box"]
        assert abs(loaded["crop"].width - (x1 - x0) * loaded["width"]) <= 2
        assert Image.open(io.BytesIO(stored["crop"]["bytes"])).format == "PNG"
    first = raw[0]
    assert first["image"]["bytes"] == row(0)["jpg"]  # as found
    assert (first["key"], first["similarity"], first["head"]) == ("000000000", pytest.approx(0.33), "fox")

    counts = pq.read_table(output / "concept_counts.parquet").to_pylist()
    assert sum(c["count"] for c in counts if c["words"] == 1) == 72
    assert {c["concept"]: c["count"] for c in counts}["table"] == 24


def test_every_bad_row_is_a_counted_reason(tmp_path: Path, grounder):
    good = encoded(picture(1))
    rows = [
        row(0),
        row(1, jpg=b""),
        row(2, jpg=good[:-200]),
        row(3, jpg=b"not an image"),
        row(4, json=b"{"),
        row(5, json_punsafe=0.99),
        row(6, json_pwatermark=0.99),
        row(7, json_caption="happiness and freedom"),
        row(8, json_caption="x" * 1_000_000),
        row(9, jpg=row(0)["jpg"]),
        row(10, jpg=encoded(picture(0), "PNG")),
        row(11),
    ]
    data = write_tar(tmp_path / "in" / "00000.tar", rows).read_bytes()
    (tmp_path / "in" / "00001.tar").write_bytes(data[: len(data) // 3])
    tally = build_pairs(config(tmp_path / "in", tmp_path / "out"), grounder).tally
    check_law(tally)
    expected = {
        "image_empty", "image_truncated", "image_unreadable", "row_bad_json", "unsafe_score", "watermark_score",
        "caption_without_phrase", "caption_too_long", "duplicate_exact", "duplicate_near", "broken_tar",
        "duplicate_across_shards",
    }  # fmt: skip
    assert expected <= set(tally.row_reasons)
    assert tally.rows_kept == 2


def test_duplicates_across_shards_are_dropped_once(tmp_path: Path, grounder):
    write_tar(tmp_path / "in" / "0.tar", [row(i) for i in range(4)])
    write_tar(tmp_path / "in" / "1.tar", [row(i) for i in (2, 3, 4, 5)], shard=1)
    result = build_pairs(config(tmp_path / "in", tmp_path / "out"), grounder)
    check_law(result.tally)
    assert result.tally.row_reasons["duplicate_across_shards"] == 2
    digests = [r["sha256"] for r in rows_of(tmp_path / "out")]
    assert len(set(digests)) == result.tally.rows_kept == 6


def killed_build(build: BuildConfig, steps: int) -> None:
    for count, _ in enumerate(run(make_plan(build, EveryPhraseGrounder()), EveryPhraseGrounder())):
        if count == steps:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_killed_build_resumes_to_the_same_bytes(corpus: Path, tmp_path: Path, grounder):
    write_tar(corpus / "00003.tar", [row(2, 0), row(9, 3)], 3)  # one duplicate across shards
    whole = tmp_path / "whole"
    build_pairs(config(corpus, whole), grounder)
    build = config(corpus, tmp_path / "killed")
    for steps in (0, 3):
        process = multiprocessing.get_context("fork").Process(target=killed_build, args=(build, steps))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        with pytest.raises(AssertionError):
            assert comparable(tmp_path / "killed") == comparable(whole)
    done = set((tmp_path / "killed" / "shards").iterdir())
    assert 0 < len(done) < 4
    plan = make_plan(build, grounder)
    assert len(plan.tasks()) == 4 - len(done)  # finished shards are not mined again
    build_pairs(build, grounder)
    assert comparable(tmp_path / "killed") == comparable(whole)
    assert not list((tmp_path / "killed").rglob("*.tmp"))


def test_a_second_run_changes_nothing_and_another_configuration_is_refused(corpus: Path, tmp_path: Path, grounder):
    build = config(corpus, tmp_path / "out", limit=10)
    first = build_pairs(build, grounder)
    before = files(tmp_path / "out")
    again = build_pairs(replace(build, batch_size=3), grounder)  # decides nothing about the output
    assert (first.reused, again.reused) == (False, True)
    assert first.tally.rows_read == again.tally.rows_read == 10
    assert files(tmp_path / "out") == before
    with pytest.raises(UserError, match=r"--box-threshold 0\.25 \(now 0\.4\)"):
        build_pairs(replace(build, box_threshold=0.4), grounder)
    write_tar(corpus / "00000.tar", [row(0)])
    with pytest.raises(UserError, match="another input"):
        build_pairs(build, grounder)
    assert files(tmp_path / "out") == before


def test_a_second_build_in_the_same_folder_is_refused(corpus: Path, tmp_path: Path, grounder):
    build = config(corpus, tmp_path / "out")
    running = run(make_plan(build, grounder), grounder)
    next(running)
    with pytest.raises(UserError, match="another build"):
        next(run(make_plan(build, grounder), grounder))
    running.close()
    assert build_pairs(build, grounder).tally.pairs == 72  # an interrupted build can be taken up


def test_a_folder_of_something_else_is_left_alone(corpus: Path, tmp_path: Path, grounder):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="not empty"):
        build_pairs(config(corpus, tmp_path / "home"), grounder)


def test_the_report_escapes_captions(tmp_path: Path, grounder):
    hostile = 'a red fox "><img src=x onerror=alert(1) and a blue car {{7*7}}'
    write_tar(tmp_path / "in" / "0.tar", [row(0, json_caption=hostile), row(1, json_caption=hostile, jpg=b"x")])
    build_pairs(config(tmp_path / "in", tmp_path / "out"), grounder)
    report = (tmp_path / "out" / "report.html").read_text()
    assert "onerror=alert(1)" in report and "<img src=x" not in report
    assert "{{7*7}}" in report
    assert "data:image/jpeg;base64," in report and "image unreadable" in report


def test_the_command_line_end_to_end(corpus: Path, tmp_path: Path, tiny_detector: Path, capsys):
    """spaCy and a real GroundingDINO model; then the same command again, without loading either."""
    arguments = ["--input", str(corpus), "--output", str(tmp_path / "out"), "--detector", str(tiny_detector)]
    arguments += ["--device", "cpu", "--limit", "6", "--box-threshold", "0.01", "--max-instances", "99"]
    assert main(arguments) == 0
    assert "report.html" in capsys.readouterr().out.replace("\n", "")
    assert rows_of(tmp_path / "out")
    code = (
        f"import sys; from curation.build import main; code = main({arguments!r}); "
        "assert not {'torch', 'spacy', 'transformers'} & set(sys.modules), 'heavy import'; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "was complete before" in done.stdout


def test_shards_that_are_done_before_the_first_progress_are_counted_once(
    corpus: Path, tmp_path: Path, grounder, monkeypatch, capsys
):
    """As with several workers, who are ahead of what is shown."""
    monkeypatch.setattr("curation.build.run", lambda plan: iter(list(run(plan, grounder))))
    arguments = ["--input", str(corpus), "--output", str(tmp_path / "out"), "--detector", "none/such"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "resuming" not in shown and "mining: 24 of 24 rows, 72 pairs" in shown and "shard 3/3" in shown


def test_user_errors_are_one_line_and_exit_code_2(corpus: Path, tmp_path: Path, capsys):
    missing = ["--output", str(tmp_path / "o")]
    for arguments in (
        ["--input", str(tmp_path / "none"), "--detector", str(tmp_path), *missing],
        ["--source", "moon", "--input", str(corpus), "--detector", str(tmp_path), *missing],
        ["--input", str(corpus), "--detector", str(tmp_path / "none"), *missing],
        ["--input", str(corpus), "--detector", str(tmp_path), "--limit", "0", *missing],
        ["--source", "folder", "--detector", str(tmp_path), *missing],
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ")
        assert "mini-LAION" not in error and "mini-laion" not in error
