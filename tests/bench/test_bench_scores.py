"""Scores in a run: what cannot be scored, what is computed once, the floor and the ceiling beside each mean."""

import numpy as np
import pytest
from PIL import Image

from tests.bench.bench_fakes import Painter
from tests.bench.test_bench_run import query
from umm_bench.methods import METHODS
from umm_bench.metrics import embedding
from umm_bench.metrics.embedding import Encoder


class Floor(Painter):
    name = "sd"


@pytest.fixture
def floor():
    with METHODS.register("sd", Floor):
        yield


@pytest.fixture(autouse=True)
def fresh_encoders():
    """Painters draw the same pictures in every test."""
    embedding.vision_encoder.cache_clear()
    yield
    embedding.vision_encoder.cache_clear()


def samples(tmp_path):
    return sorted((tmp_path / "reports" / "samples").glob("*.png"))


def test_a_corrupt_picture_is_one_row_with_its_reason(bench, tmp_path, capsys):
    assert bench("--methods", "painter", "--metrics", "clip_t") == 0
    broken = samples(tmp_path)[0]
    content = broken.read_bytes()
    broken.write_bytes(b"no picture")
    assert bench("--methods", "painter", "--metrics", "clip_t,dino,identity") == 1
    rows = query(tmp_path, "select sample_key, metric, status, reason from unscored order by metric")
    assert [row[:3] for row in rows] == [(broken.stem, metric, "failed") for metric in ("dino", "identity")]
    assert all("cannot be read as an image" in row[3] for row in rows)
    assert query(tmp_path, "select count(*) from results where metric = 'dino'") == [(3,)]
    assert f"unscored  dino: 1 image (as {broken.stem}): " in capsys.readouterr().out
    broken.write_bytes(content)
    again = ["--methods", "painter", "--metrics", "clip_t,dino,identity"]
    assert bench(*again) == 1
    assert query(tmp_path, "select count(*) from unscored") == [(2,)]  # the run is finished
    assert bench(*again, "--retry-failed") == 0
    assert query(tmp_path, "select count(*) from unscored") == [(0,)]
    assert query(tmp_path, "select count(*) from results where metric = 'dino'") == [(4,)]


def test_a_bug_on_one_picture_costs_that_picture(bench, tmp_path, monkeypatch):
    embed = Encoder.embed

    def fails_once(self, image):
        if image.getpixel((0, 0)) == marked:
            raise IndexError("a bug")
        return embed(self, image)

    assert bench("--methods", "painter", "--metrics", "clip_t") == 0
    marked = Image.open(samples(tmp_path)[1]).getpixel((0, 0))
    monkeypatch.setattr(Encoder, "embed", fails_once)
    assert bench("--methods", "painter", "--metrics", "dino") == 1
    assert query(tmp_path, "select sample_key, reason from unscored") == [
        (samples(tmp_path)[1].stem, "IndexError: a bug")
    ]


def test_a_value_that_is_no_number_is_no_score(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding, "unit", lambda features_BD: np.full(features_BD.shape, np.nan, np.float32))
    assert bench("--methods", "painter", "--metrics", "dino", "--subjects", "1") == 1
    assert query(tmp_path, "select distinct reason from unscored") == [("dino is nan",)]
    assert query(tmp_path, "select count(*) from scores") == [(0,)]


def test_a_model_that_cannot_be_used_ends_the_run_in_one_line(bench, world, tmp_path, capsys):
    (tmp_path / "none").mkdir()
    assert bench("--methods", "painter", "--metrics", "dino", "--set", f"dino.model={tmp_path / 'none'}") == 2
    assert "error: cannot load metric model" in capsys.readouterr().err.splitlines()[-1]
    assert query(tmp_path, "select count(*) from unscored") == [(0,)]


def test_what_a_metric_is_not_for_is_skipped_and_said_so(bench, tmp_path, capsys):
    words = ["--methods", "painter", "--metrics", "clip_t,copy_paste,diversity"]
    assert bench(*words, "--images-per-prompt", "2", "--subjects", "1", "--prompts", "1") == 0
    rows = query(tmp_path, "select metric, status, count(*) from unscored group by all order by all")
    assert rows == [("copy_paste", "skipped", 2), ("diversity", "skipped", 1)]
    out = capsys.readouterr().out
    assert "unscored  copy_paste: 2 images" in out and "no picture of red-fox is held out" in out
    assert "unscored  diversity" not in out  # its second image has a score
    assert bench("--methods", "painter", "--metrics", "copy_paste", "--references", "1") == 0
    assert query(tmp_path, "select count(*) from results where metric = 'copy_paste'") == [(4,)]


def test_floor_and_ceiling_stand_beside_each_mean(bench, tmp_path, floor, capsys):
    assert bench("--methods", "painter", "--pairs", "1", "--floor", "--set", "painter.shade=40") == 0
    rows = query(tmp_path, "select metric, subject, value, pairs, suite from ceilings order by all")
    assert [row[:2] for row in rows] == [(m, s) for m in ("clip_i", "dino") for s in ("blue-cup", "red-fox")]
    assert all(pairs == 3 and suite == "fake" for *_, pairs, suite in rows)
    ceiling = {(metric, subject): value for metric, subject, value, *_ in rows}
    for metric in ("clip_i", "dino"):
        ((low, high),) = query(tmp_path, "select floor, ceiling from summaries where method = 'painter'"
                               f" and metric = '{metric}' and subject_count = 1")  # fmt: skip
        ((mean,),) = query(
            tmp_path, f"select mean from summaries where method='sd' and metric='{metric}' and subject_count=1"
        )
        assert low == pytest.approx(mean)
        assert high == pytest.approx((ceiling[metric, "red-fox"] + ceiling[metric, "blue-cup"]) / 2)
    texts = query(tmp_path, "select distinct ceiling from summaries where metric = 'clip_t'")
    assert texts == [(None,)]
    out = capsys.readouterr().out
    assert out.count("real images  ") == 2 and "…" not in out


def test_without_the_floor_no_mean_has_one(bench, tmp_path):
    assert bench("--methods", "painter") == 0
    assert query(tmp_path, "select count(*) from summaries where floor is not null") == [(0,)]


def test_a_set_has_one_value_a_method_and_kind_of_case(bench, tmp_path, floor):
    words = ["--methods", "painter", "--subjects", "3", "--pairs", "2", "--floor", "--set", "painter.shade=40"]
    assert bench(*words) == 0
    columns = "method, metric, subject_count, samples, cases, low is null, lower_is_better"
    rows = query(tmp_path, f"select {columns} from set_scores order by all")
    assert rows == [
        (method, "prior_kid", count, 2 * cases, cases, cases < 3, True)
        for method in ("painter", "sd")
        for count, cases in ((1, 3), (2, 2))
    ]
    own = query(tmp_path, "select value from set_scores where method = 'sd'")
    assert [value for (value,) in own] == pytest.approx([0, 0], abs=1e-6)
    before = query(tmp_path, "select value, low, high from set_scores order by subject_count")
    assert bench(*words) == 0
    assert bench(*words, "--retry-failed") == 0
    assert query(tmp_path, "select value, low, high from set_scores order by subject_count") == before


def test_a_picture_is_embedded_once_whatever_looks_at_it(bench, tmp_path, monkeypatch):
    seen: list[int] = []
    embed = Encoder.embed

    def counting(self, image):
        seen.append(id(self))
        return embed(self, image)

    monkeypatch.setattr(Encoder, "embed", counting)
    metrics = "dino,dino_input,gallery_rank,copy_paste,diversity"
    assert bench("--methods", "painter", "--metrics", metrics, "--images-per-prompt", "2", "--references", "1") == 0
    assert len(seen) == 8 + 9  # the images, and the pictures of all three subjects
    kept = list((tmp_path / "reports" / "features").rglob("*.safetensors"))
    assert len(kept) == len(seen)


def test_what_is_like_dino_has_its_settings(bench, world, tmp_path):
    assert (
        bench("--methods", "painter", "--metrics", "dino,gallery_rank", "--set", f"dino.model={world / 'encoder'}") == 0
    )
    protocols = query(tmp_path, "select distinct protocol from scores order by 1")
    assert len(protocols) == 2 and all("encoder@" in protocol for (protocol,) in protocols)
    directions = query(tmp_path, "select metric, lower_is_better from run_protocols order by metric")
    assert directions == [("dino", False), ("gallery_rank", True), ("gallery_reciprocal_rank", False)]


def test_a_degraded_run_has_rows_of_what_came_through(bench, tmp_path):
    assert bench("--methods", "painter", "--degrade", "noise") == 0
    rows = query(tmp_path, "select metric, count(*) from results where metric like 'sharp%' group by all order by all")
    assert rows == [("sharpness", 4), ("sharpness_transfer", 4)]
    # an image of one colour has nothing of the noise
    assert query(tmp_path, "select max(abs(value)) < 0.01 from results where metric = 'sharpness_transfer'") == [
        (True,)
    ]
