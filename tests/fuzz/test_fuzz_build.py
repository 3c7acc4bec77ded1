"""Any command line of the miner ends in a plan, or in one line with exit code 2."""

from dataclasses import fields

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from curation import build, evaluate, judge
from curation.config import BuildConfig
from curation.errors import UserError
from tests.curation.conftest import row, write_tar
from tests.fuzz.ending import ends_well
from tests.fuzz.odd import names, numbers, options, texts

FOLDERS = ("input", "output", "detector", "clip", "segmenter", "dedup_against", "groundingdino_env", "operating_point")
BUILD = {
    f"--{f.name.replace('_', '-')}": st.one_of(names, st.just("CORPUS"))
    if f.name in FOLDERS
    else st.one_of(st.sampled_from(["1", "2", "64"]), numbers)
    if f.metadata["kind"] not in (str, bool)
    else texts
    for f in fields(BuildConfig)
    if f.name != "publish"  # asks the hub
} | {"--unknown": numbers}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a corpus of two rows, a file and a folder."""
    folder = tmp_path_factory.mktemp("fuzz-build")
    (folder / "FILE").write_text("not a folder")
    (folder / "FOLDER").mkdir()
    (folder / "CORPUS").mkdir()
    write_tar(folder / "CORPUS" / "00000.tar", [row(0), row(1)])
    return folder


@given(words=options(BUILD, 4))
@example(words=["--output", "x" * 300])
@example(words=["--output", "a\0b"])
@example(words=["--max-punsafe", "nan"])
@example(words=["--limit", "9" * 5000])
@example(words=["--input", "\udcff"])
def test_build(place, outcomes, words):
    """The command line, what it names and the plan; the mining itself is not begun."""

    def reached(plan):
        raise UserError("the plan was made")

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(build, "run", reached)
        ends_well(outcomes, build.main, ["--input", "CORPUS", "--output", "pairs", *words])


EVALUATE = dict.fromkeys(("--size", "--box-threshold", "--min-clip-score", "--false-accepts"), numbers)
EVALUATE |= dict.fromkeys(("--input", "--detector", "--clip", "--csv", "--labels", "--images", "--save"), names) | {
    "--device": texts
}


@given(words=options(EVALUATE))
@example(words=["--box-threshold", "nan"])
def test_evaluate(place, outcomes, words):
    """The command line; the evaluation itself is not begun."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(evaluate, "evaluate", lambda *arguments: None)
        ends_well(outcomes, evaluate.main, words)


@given(words=options({"--captions": st.one_of(names, texts), "--sample": texts}))
def test_judge(place, outcomes, words):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        ends_well(outcomes, judge.main, ["--captions", "FILE", *words])
