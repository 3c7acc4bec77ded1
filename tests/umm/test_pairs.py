"""From curation's rows to the text and pictures of training."""

import dataclasses
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.umm.conftest import picture, png, row
from umm_bench.errors import UserError
from umm_bench.umm.pairs import Pair, count_pairs, read_pairs, subject_caption, target_image


def pair(caption, phrase, noun):
    start = caption.index(phrase)
    return Pair("0", png(picture(0)), png(picture(1)), caption, start, start + len(phrase), noun, (0, 0, 1, 1))


@pytest.mark.parametrize(
    ("caption", "phrase", "noun", "short", "words"),
    [
        ("A small red fox, on snow", "A small red fox", "fox", "A fox, on snow", "small red fox"),
        ("photo of an orange dog", "an orange dog", "dog", "photo of a dog", "orange dog"),
        ("the big owl flies", "the big owl", "owl", "the owl flies", "big owl"),
        ("a red apple", "a red apple", "apple", "an apple", "red apple"),
        ("a tall glass of beer", "a tall glass of beer", "glass of beer", "a glass of beer", "tall glass of beer"),
        ("a big ice cream", "a big ice cream", "ice cream", "an ice cream", "big ice cream"),
        ("two dogs", "two dogs", "dogs", "dogs", "two dogs"),
        ("antelope on grass", "antelope", "antelope", "antelope on grass", "antelope"),
    ],
)
def test_subject_caption(caption, phrase, noun, short, words):
    full, start, end = subject_caption(pair(caption, phrase, noun), head_only=False)
    assert full == caption and full[start:end] == words
    full, start, end = subject_caption(pair(caption, phrase, noun), head_only=True)
    assert full == short and full[start:end] == noun


def test_read_pairs(pairs_folder):
    folder = pairs_folder()
    pq.write_table(pa.table({"concept": ["dog"], "count": [1]}), folder / "concept_counts.parquet")
    pairs = list(read_pairs(folder))
    assert [p.id for p in pairs] == [f"row-{i}" for i in range(6)] and count_pairs(folder) == 6
    first = pairs[0]
    assert first.caption[first.start : first.end] == "a small red dog" and first.noun == "dog"
    assert first.box == (0.125, 0.25, 0.875, 0.75)
    assert len({p.digest for p in pairs}) == 6
    assert dataclasses.replace(first, id="x").digest == first.digest
    assert dataclasses.replace(first, caption=first.caption.upper()).digest != first.digest


def test_the_noun_is_what_the_build_calls_so_and_the_head_where_it_says_nothing(pairs_folder):
    rows = [row(i, "a blue ice cream", "a blue ice cream", "cream") for i in range(2)]
    assert [p.noun for p in read_pairs(pairs_folder(rows))] == ["cream"] * 2
    assert [p.noun for p in read_pairs(pairs_folder([r | {"noun": "ice cream"} for r in rows]))] == ["ice cream"] * 2


def test_what_lies_beside_the_rows_of_a_build_is_not_read(pairs_folder, tmp_path):
    build = tmp_path / "build"
    shutil.copytree(pairs_folder(), build / "data")
    (build / "shards").mkdir()
    pq.write_table(pa.table({"url": ["http://gone.example"]}), build / "shards" / "00000.failures-0.parquet")
    assert count_pairs(build) == 6


def test_read_pairs_errors(tmp_path):
    with pytest.raises(UserError, match=r"no parquet pairs in .*nowhere"):
        count_pairs(tmp_path / "nowhere")
    pq.write_table(pa.table({"id": ["x"]}), tmp_path / "other.parquet")
    with pytest.raises(UserError, match=r"other\.parquet lacks the column image"):
        list(read_pairs(tmp_path))
    (tmp_path / "other.parquet").write_bytes(b"garbage")
    with pytest.raises(UserError, match="not readable as parquet"):
        list(read_pairs(tmp_path))


def test_target_keeps_the_box_of_a_long_picture():
    pixels = np.zeros((20, 60, 3), dtype=np.uint8)
    pixels[:, 40:] = 255
    settings = row(0, "a dog", "a dog", "dog")
    long = Pair("0", png(Image.fromarray(pixels)), settings["crop"]["bytes"], "a dog", 0, 5, "dog", (0.7, 0, 1, 1))
    assert np.asarray(target_image(long, (10, 10))).min() > 200
    assert np.asarray(target_image(dataclasses.replace(long, box=(0, 0, 0.2, 1)), (10, 10))).max() < 50
