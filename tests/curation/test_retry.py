"""Builds from URL lists, served from the loopback: what a passing failure loses, a later build brings back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation import BuildConfig, build_pairs, make_plan, retry
from curation.output.writer import Layout
from curation.retry import read_failures
from curation.runner import run
from tests.curation.conftest import SUBJECTS, EveryPhraseGrounder


def check_law(tally) -> None:
    assert tally.rows_read == tally.rows_kept + sum(tally.row_reasons.values())
    assert tally.phrases == tally.pairs + sum(tally.phrase_reasons.values())


@pytest.fixture(autouse=True)
def one_parser(extractor, monkeypatch):
    """spaCy takes longer to load than all that is tested here."""
    monkeypatch.setattr("curation.language.phrases.PhraseExtractor", lambda _: extractor)


@pytest.fixture
def build(tmp_path: Path, site) -> BuildConfig:
    """Six rows in two shards: three good, one gone, two that fail while ``site.down``."""
    pages = ["picture?0", "sometimes?1", "gone?0", "picture?3", "sometimes?4", "picture?5"]
    captions = [f"a {subject} on a happiness next to a wooden table" for subject in SUBJECTS]
    table = pa.table({"URL": [f"{site.url}/{page}" for page in pages], "TEXT": captions, "punsafe": [0.1] * 6})
    pq.write_table(table, tmp_path / "list.parquet")
    return BuildConfig(
        input=str(tmp_path / "list.parquet"),
        output=str(tmp_path / "out"),
        rows_per_shard=3,
        fetch_private="allow",
        fetch_host_delay=0.0,
        fetch_retries=0,
        near_duplicate_bits=-1,
    )


def rows_of(build: BuildConfig) -> list[dict]:
    files = sorted(Path(build.output, "data").glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def manifest(build: BuildConfig) -> dict:
    return json.loads(Path(build.output, "manifest.json").read_text())


def test_a_later_build_retries_what_may_pass(build: BuildConfig, site, grounder, tmp_path: Path):
    site.down = True
    first = build_pairs(build, grounder).tally
    check_law(first)
    assert first.row_reasons == {"fetch_http_5xx": 2, "fetch_http_4xx": 1} and first.rows_kept == 3
    layout = Layout(Path(build.output), 2)
    failures = read_failures(layout, 0)
    assert [(f.sample.url, f.reason, f.transient) for f in failures] == [
        (f"{site.url}/sometimes?1", "fetch_http_5xx", True),
        (f"{site.url}/gone?0", "fetch_http_4xx", False),
    ]

    still = build_pairs(build, grounder)
    assert not still.reused and still.tally.row_reasons == first.row_reasons  # tried in vain
    assert site.seen["/gone"] == 1  # what is gone is left alone
    assert site.seen["/picture"] == 3  # what is there is not downloaded again

    site.down = False
    later = build_pairs(build, grounder).tally
    check_law(later)
    assert later.row_reasons == {"fetch_http_4xx": 1} and later.rows_kept == 5
    assert manifest(build)["complete"] and site.seen["/picture"] == 3
    assert build_pairs(build, grounder).reused  # nothing is left to try

    fresh = build_pairs(replace(build, output=str(tmp_path / "fresh")), grounder).tally
    assert fresh.counts() == later.counts()
    mined = {row["id"]: row for row in rows_of(build)}
    whole = {row["id"]: row for row in rows_of(replace(build, output=str(tmp_path / "fresh")))}
    assert mined == whole and len(rows_of(build)) == len(whole) == later.pairs


def test_a_retry_that_is_killed_can_be_repeated(build: BuildConfig, site, grounder, monkeypatch):
    site.down = True
    build_pairs(build, grounder)
    site.down = False

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # after the pairs are in place, before the shard's state is
        patch.setattr(retry, "write_state", killed)
        with pytest.raises(KeyboardInterrupt):
            for _ in run(make_plan(build, grounder), grounder):
                pass
    assert not manifest(build)["complete"]
    check_law(build_pairs(build, grounder).tally)  # the shard is ahead of its tally, and is tried again
    tally = build_pairs(build, grounder).tally
    check_law(tally)
    assert tally.row_reasons == {"fetch_http_4xx": 1} and tally.rows_kept == 5
    rows = rows_of(build)
    assert len(rows) == len({row["id"] for row in rows}) == tally.pairs


def test_a_duplicate_of_an_old_row_is_not_brought_back(build: BuildConfig, site, grounder):
    """The failed page turns out to show what the shard has already."""
    table = pq.read_table(build.input)
    urls = table["URL"].to_pylist()
    urls[1] = f"{site.url}/sometimes?0"
    pq.write_table(table.set_column(0, "URL", pa.array(urls)), build.input)
    site.down = True
    build_pairs(build, grounder)
    site.down = False
    tally = build_pairs(build, grounder).tally
    check_law(tally)
    assert tally.row_reasons == {"duplicate_exact": 1, "fetch_http_4xx": 1}


def test_the_loopback_is_refused_unless_asked_for(build: BuildConfig, site):
    tally = build_pairs(replace(build, fetch_private="refuse"), EveryPhraseGrounder()).tally
    assert tally.row_reasons == {"fetch_private_address": 6} and not site.seen
