"""Rows of several subjects, and what captions say between them."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curation import build_pairs
from curation.language.phrases import PhraseExtractor
from curation.language.relations import relations
from tests.curation.conftest import row, write_tar
from tests.curation.test_build import config, files, rows_of


@pytest.mark.parametrize(
    ("caption", "subjects", "said"),
    [
        ("a cat sitting on a sofa", ["a cat", "a sofa"], {(0, 1): "sitting on"}),
        ("a red fox next to a blue car", ["a red fox", "a blue car"], {(0, 1): "next to"}),
        ("a dog in front of a house", ["a dog", "a house"], {(0, 1): "in front of"}),
        ("a man is riding a brown horse", ["a man", "a brown horse"], {(0, 1): "riding"}),
        ("a cat and a dog", ["a cat", "a dog"], {}),
        ("a cat, a dog", ["a cat", "a dog"], {}),
        ("a cat. a dog", ["a cat", "a dog"], {}),
        ("a boy with a hat on a bench", ["a boy", "a hat", "a bench"], {(0, 1): "with"}),
    ],
)
def test_the_phrase_between_two_subjects(caption: str, subjects: list[str], said: dict, extractor: PhraseExtractor):
    (doc,) = extractor.parse([caption])
    spans = [(caption.index(name), caption.index(name) + len(name)) for name in subjects]
    found = {(r.first, r.second): caption[r.start : r.end] for r in relations(doc, spans)}
    assert {pair: text for pair, text in found.items() if pair in said} == said
    if not said:
        assert found == {}
    for (i, j), text in found.items():  # between the two, and through nobody else
        assert spans[i][1] <= caption.index(text) and not any(name in text for name in subjects)
        assert caption.rindex(text) + len(text) <= spans[j][0]


def test_sets_hold_the_pairs_of_a_picture_in_the_captions_order(corpus: Path, tmp_path: Path, grounder):
    plain = config(corpus, tmp_path / "plain")
    build_pairs(plain, grounder)
    build_pairs(config(corpus, tmp_path / "out", sets=True), grounder)
    inside = {name: data for name, data in files(tmp_path / "out").items() if not name.startswith("sets/")}
    assert inside.keys() == files(tmp_path / "plain").keys()  # the build is the same with and without
    assert all(inside[name] == data for name, data in files(tmp_path / "plain").items() if name.startswith("data/"))
    pairs = {row["id"]: row for row in rows_of(tmp_path / "out")}
    rows = rows_of(tmp_path / "out" / "sets")
    assert len(rows) == 24
    for one in rows:
        subjects = one["subjects"]
        assert [s["phrase"] for s in subjects] == sorted(
            (s["phrase"] for s in subjects), key=lambda phrase: one["caption"].index(phrase)
        )
        for subject in subjects:
            pair = pairs[subject["id"]]
            assert pair["caption"] == one["caption"] and pair["image"] == one["image"]
            assert all(subject[name] == pair[name] for name in ("box", "score", "crop", "phrase_start", "concept"))
        said = {(r["first"], r["second"]): r["phrase"] for r in one["relations"]}
        assert said[0, 1] == "next to"
        assert all(one["caption"][r["start"] : r["end"]] == r["phrase"] for r in one["relations"])
    import datasets

    loaded = datasets.load_dataset(str(tmp_path / "out" / "sets"), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.num_rows == 24 and loaded[0]["subjects"][0]["crop"].size[0] > 0

    before = files(tmp_path / "out")
    build_pairs(config(corpus, tmp_path / "out", sets=True), grounder)
    assert files(tmp_path / "out") == before


def test_of_many_subjects_the_best_four_and_of_one_no_row(tmp_path: Path, grounder):
    many = "a red fox, a blue car, a green bottle, a wooden chair, a white rabbit and a yellow bird"
    rows = [row(0, json_caption=many), row(1, json_caption="a red fox")]
    write_tar(tmp_path / "in" / "0.tar", rows)
    build_pairs(config(tmp_path / "in", tmp_path / "out", sets=True), grounder)
    (one,) = rows_of(tmp_path / "out" / "sets")
    pairs = rows_of(tmp_path / "out")
    assert len(pairs) == 7
    of_many = sorted((p for p in pairs if p["caption"] == many), key=lambda p: -p["score"])[:4]
    assert {s["id"] for s in one["subjects"]} == {p["id"] for p in of_many}
    assert one["relations"] == []


def test_a_build_without_pairs_has_sets_without_rows(tmp_path: Path, grounder):
    write_tar(tmp_path / "in" / "0.tar", [row(0, json_caption="wow")])
    build_pairs(config(tmp_path / "in", tmp_path / "out", sets=True), grounder)
    (path,) = (tmp_path / "out" / "sets" / "data").iterdir()
    assert pq.read_metadata(path).num_rows == 0
