"""Both sides of `benchmarks.scoring` give the same scores, ours with far fewer looks."""

import json

import pytest

from benchmarks import scoring
from umm_bench.metrics.embedding import Encoder


@pytest.fixture(scope="module")
def models() -> scoring.Models:
    return scoring.Models.load()


def test_both_sides_agree_and_ours_embeds_a_picture_once_a_model(models, tmp_path, monkeypatch):
    samples = scoring.pictures(tmp_path, subjects=2, references=3, images=2, pixels=64)
    looks: list[int] = []
    for encoder in (models.dino, models.clip):
        pool = type(encoder).pool
        monkeypatch.setattr(type(encoder), "pool", lambda self, x, pool=pool: looks.append(len(x)) or pool(self, x))
    assert isinstance(models.dino, Encoder)
    plain = scoring.plain(models, samples)
    theirs, looks[:] = sum(looks), []
    ours = scoring.ours(models, samples)
    assert ours == pytest.approx(plain, abs=1e-5) and len(ours) == 3 * 4
    assert theirs == 4 * (2 * 2 * 3 + 1)  # both of a pair by two models, and the image beside its words
    assert sum(looks) == 2 * (4 + 2 * 3)  # each picture by two models


def test_the_figures(capsys):
    words = ["--json", "--subjects", "1", "--images", "1", "--references", "2", "--pixels", "64", "--repeats", "1"]
    assert scoring.main(words) == 0
    rows = {row["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert rows["scoring.speedup"]["bar"] == 6 and rows["scoring.largest_difference"]["ok"]
    assert scoring.main(["--images", "0"]) == 2
