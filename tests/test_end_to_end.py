"""The way through on the shipped weights, small: corpus, pairs, training, sampling, bench, report."""

import re
import time

import duckdb
import pytest
from datasets import load_dataset
from PIL import Image

from curation import build
from umm_bench import run, sample, train
from umm_bench.mini import family
from umm_bench.mini.world import corpus, suite

pytestmark = pytest.mark.skipif(
    not all((family.WEIGHTS / name).is_dir() for name in family.NAMES), reason="mini weights are not there: make mini"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("end-to-end")


@pytest.fixture(scope="module")
def pairs(place):
    corpus.build(place / "laion", 60)
    assert build.main(["--source", "laion", "--input", str(place / "laion"), "--output", str(place / "pairs")]) == 0
    return place / "pairs"


def test_mined_pairs_open_with_datasets_and_hold_their_phrase(pairs):
    rows = load_dataset(str(pairs), split="train", cache_dir=str(pairs.parent / "cache"))
    assert len(rows) >= 5
    for row in rows:
        assert row["caption"][row["phrase_start"] : row["phrase_end"]] == row["phrase"]
        assert row["crop"].size[0] <= row["image"].size[0]
        x0, y0, x1, y1 = row["box"]
        assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1


def test_the_tiue_trains_on_mined_pairs(pairs, place):
    words = ["--data", pairs, "--base", "mini", "--output", place / "tiue", "--steps", "2", "--batch-size", "2"]
    assert train.main([str(word) for word in words]) == 0
    assert (place / "tiue" / "diffusion_pytorch_model.safetensors").is_file()


def test_one_picture_and_a_sentence_make_an_image(place):
    picture = suite.reference("cat/noto", 0)
    Image.fromarray(picture).save(place / "ref.png")
    words = ["--image", place / "ref.png", "--subject", "cat", "--prompt", "a cat on a blue background"]
    assert sample.main([str(w) for w in [*words, "--out", place / "out.png", "--steps", "3"]]) == 0
    assert Image.open(place / "out.png").size == (64, 64)


def test_a_run_ends_in_scores_and_a_report_and_is_not_made_twice(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    words = ["--methods", "sd,umm", "--subjects", "1", "--prompts", "2", "--steps", "3"]
    assert run.main(words) == 0
    # The terminal's width may break the line; the path is what counts.
    page = re.search(r"reports/run-\w+/index\.html", capsys.readouterr().out.replace("\n", ""))
    assert page is not None and (place / page.group()).read_text().count("<img") >= 5
    with duckdb.connect(str(place / "reports" / "umm_bench.duckdb"), read_only=True) as store:
        means = store.sql("select method, avg(value) from results where metric = 'dino' group by method").fetchall()
        metrics = {row[0] for row in store.sql("select distinct metric from results").fetchall()}
    assert {method for method, _ in means} == {"sd", "umm"}
    assert {"clip_t", "clip_i", "dino", "identity"} <= metrics
    made = {path: path.stat().st_mtime_ns for path in (place / "reports" / "samples").glob("*.png")}
    began = time.monotonic()
    assert run.main(words) == 0
    assert time.monotonic() - began < 20  # nothing is generated or scored again
    assert made == {path: path.stat().st_mtime_ns for path in (place / "reports" / "samples").glob("*.png")}
