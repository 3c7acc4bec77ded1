"""What a pair says of others of its kind and of what else its crop shows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from curation import BuildConfig, UserError, build_pairs
from curation.build import main
from curation.config import FORMAT_VERSION
from curation.errors import Rejected
from curation.grounding.crowds import count_crowds, covered, why_not_alone
from curation.records import Box, Crowd, Phrase
from tests.curation.conftest import row, write_tar
from tests.curation.test_build import comparable, config, rows_of

FOX = Box(0.0, 0.0, 0.4, 1.0, 0.9)
SECOND = Box(0.3, 0.0, 0.7, 1.0, 0.8)  # a quarter of it in the first one's box
FAR = Box(0.8, 0.0, 1.0, 0.5, 0.7)
CAR = Box(0.2, 0.5, 0.9, 1.0, 0.6)


class Saying:
    """The boxes of each name, whatever the picture; notes what it was asked."""

    def __init__(self, boxes: dict[str, list[Box]]) -> None:
        self.boxes, self.asked = boxes, []

    def ground(self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]) -> list[list[list[Box]]]:
        self.asked += [list(row) for row in phrases]
        return [[self.boxes.get(phrase, []) for phrase in row] for row in phrases]


def phrase(text: str) -> Phrase:
    noun = text.split()[-1]
    return Phrase(text, 0, len(text), noun, noun, noun)


def crowds(texts: Sequence[str], chosen: Sequence[Box | Rejected], of_noun: dict[str, list[Box]], **changes):
    image = Image.new("RGB", (10, 10))
    return count_crowds(Saying(of_noun), [image], [[phrase(t) for t in texts]], [chosen], BuildConfig(**changes))[0]


def test_others_of_the_noun_are_counted_in_picture_and_crop_and_the_subject_is_none_of_them():
    (found,) = crowds(["a red fox"], [FOX], {"fox": [Box(0.01, 0.0, 0.41, 1.0, 0.95), SECOND, FAR]})
    assert (found.others_in_image, found.others_in_crop) == (2, 1)
    assert found.foreign_share == pytest.approx(0.25)
    (alone,) = crowds(["a red fox"], [FOX], {"fox": [FOX], "red fox": [FAR]})
    assert alone == Crowd(0, 0, 0.0)


def test_another_phrases_box_of_the_same_kind_is_one_of_them_and_counted_once():
    nothing = Rejected("no_box")
    red, white, car, none = crowds(
        ["a red fox", "a white fox", "a car", "a dog"], [FOX, FAR, CAR, nothing], {"fox": [FOX, FAR], "car": [CAR]}
    )
    assert (red.others_in_image, white.others_in_image, car.others_in_image, none) == (1, 1, 0, None)
    assert red.others_in_crop == 0
    assert red.foreign_share == pytest.approx(0.25)  # half its width by half its height is car
    assert white.foreign_share == 0


def test_what_holds_the_subject_is_its_background_and_what_is_too_small_is_nobody():
    (fox, sofa) = crowds(["a fox", "a sofa"], [Box(0.3, 0.3, 0.5, 0.5, 0.9), Box(0.1, 0.1, 0.9, 0.9, 0.5)], {})
    assert fox.foreign_share == 0 and sofa.foreign_share == pytest.approx(0.04 / 0.64)
    (fox,) = crowds(["a fox"], [FOX], {"fox": [Box(0.9, 0.9, 0.95, 0.95, 0.9), Box(0, 0, 1, 1, 0.9)]})
    assert fox.others_in_image == 0  # a fleck, and the whole picture
    (fox,) = crowds(["a fox"], [FOX], {"fox": [Box(0.9, 0.9, 0.95, 0.95, 0.9)]}, min_box_area=0.0)
    assert fox.others_in_image == 1


def test_the_covered_share_is_that_of_the_union():
    subject = Box(0.0, 0.0, 1.0, 1.0, 1.0)
    halves = [Box(0.0, 0.0, 0.5, 1.0, 1.0), Box(0.25, 0.0, 0.75, 1.0, 1.0), Box(0.25, 0.2, 0.5, 0.4, 1.0)]
    assert covered(subject, halves) == pytest.approx(0.75)
    assert covered(subject, []) == 0 and covered(subject, [subject, subject]) == 1
    assert covered(Box(0.5, 0.5, 0.5, 0.9, 1.0), [subject]) == 0


def test_only_nouns_of_phrases_with_a_box_are_asked_each_once():
    saying = Saying({})
    rows = [[phrase("a red fox"), phrase("a white fox"), phrase("a dog")], [phrase("a cat")]]
    chosen = [[FOX, FAR, Rejected("no_box")], [Rejected("no_box")]]
    image = Image.new("RGB", (10, 10))
    found = count_crowds(saying, [image, image], rows, chosen, BuildConfig())
    assert saying.asked == [["fox"]] and found[1] == [None]


def test_alone_has_a_reason_each_for_company_and_for_a_shared_crop():
    def reason(crowd: Crowd, **changes) -> str | None:
        found = why_not_alone(crowd, BuildConfig(alone=True, **changes))
        return None if found is None else found.reason

    assert reason(Crowd(0, 0, 0.2)) is None
    assert reason(Crowd(1, 0, 0.0)) == "phrase_not_alone"
    assert reason(Crowd(0, 0, 0.3)) == "phrase_crop_shared"
    assert reason(Crowd(0, 0, 0.3), max_foreign_share=0.3) is None


class Foxes:
    """Each phrase in a strip of its own; a bare fox in two places."""

    def ground(self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]) -> list[list[list[Box]]]:
        def strip(i: int, name: str) -> list[Box]:
            own = Box(0.25 * i, 0.1, 0.25 * i + 0.25, 0.9, 0.5)
            return [own, Box(0.8, 0.1, 1.0, 0.9, 0.4)] if name == "fox" else [own]

        return [[strip(i, name) for i, name in enumerate(row)] for row in phrases]


def test_a_build_records_crowds_where_asked_and_keeps_what_stands_alone(tmp_path: Path):
    write_tar(tmp_path / "in" / "0.tar", [row(index) for index in range(6)])
    plain, counted, alone = (
        config(tmp_path / "in", tmp_path / name, **asked)
        for name, asked in {"plain": {}, "counted": {"crowds": True}, "alone": {"alone": True}}.items()
    )
    for build in (plain, counted, alone):
        build_pairs(build, Foxes())
    rows = rows_of(tmp_path / "counted")
    columns = ("others_in_image", "others_in_crop", "foreign_share")
    assert not set(columns) & rows_of(tmp_path / "plain")[0].keys()
    assert [{k: v for k, v in r.items() if k not in columns} for r in rows] == rows_of(tmp_path / "plain")
    assert {r["others_in_image"] for r in rows if r["concept"] == "fox"} == {1}
    assert {r["others_in_image"] for r in rows if r["concept"] != "fox"} == {0}
    kept = rows_of(tmp_path / "alone")
    assert {r["id"] for r in kept} == {r["id"] for r in rows if not r["others_in_image"] and r["foreign_share"] <= 0.25}
    counts = json.loads((tmp_path / "alone" / "manifest.json").read_text())["counts"]
    assert counts["phrase_reasons"]["phrase_not_alone"] == sum(r["others_in_image"] > 0 for r in rows)
    assert counts["phrases"] == counts["pairs"] + sum(counts["phrase_reasons"].values())
    assert "foreign_share" in (tmp_path / "counted" / "README.md").read_text()
    assert "foreign_share" not in (tmp_path / "plain" / "README.md").read_text()
    import datasets

    loaded = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "counted" / "data" / "*.parquet"), split="train"
    )
    assert loaded[0]["others_in_image"] in (0, 1)


def test_a_build_without_is_what_it_was(tmp_path: Path, corpus: Path, grounder):
    plain = config(corpus, tmp_path / "out")
    assert not {"crowds", "alone", "max_foreign_share"} & plain.to_json().keys()
    assert FORMAT_VERSION == 3
    whole = plain.fingerprint(shards=[], detector_id="d")
    for asked in ({"crowds": True}, {"alone": True}, {"alone": True, "max_foreign_share": 0.5}):
        assert config(corpus, tmp_path / "out", **asked).fingerprint(shards=[], detector_id="d") != whole
    build_pairs(plain, grounder)
    with pytest.raises(UserError, match="choose another folder"):
        build_pairs(config(corpus, tmp_path / "out", crowds=True), grounder)


def test_several_workers_and_a_kill_leave_the_same_crowds(tmp_path: Path, corpus: Path):
    first = config(corpus, tmp_path / "a", crowds=True)
    build_pairs(first, Foxes())
    (tmp_path / "b").mkdir()
    build_pairs(config(corpus, tmp_path / "b", crowds=True), Foxes())
    (tmp_path / "b" / "shards" / "00001.json").unlink()  # as if it had been killed there
    (tmp_path / "b" / "manifest.json").write_text(
        (tmp_path / "b" / "manifest.json").read_text().replace('"complete": true', '"complete": false')
    )
    build_pairs(config(corpus, tmp_path / "b", crowds=True), Foxes())
    assert comparable(tmp_path / "a") == comparable(tmp_path / "b")


def test_a_share_without_alone_is_one_line_and_exit_code_2(tmp_path: Path, capsys):
    assert main(["--max-foreign-share", "0.5", "--output", str(tmp_path / "o")]) == 2
    assert capsys.readouterr().err.strip() == "error: --max-foreign-share says what --alone drops; give both"
    assert main(["--alone", "--max-foreign-share", "7", "--output", str(tmp_path / "o")]) == 2
    assert "--max-foreign-share must be at most 1" in capsys.readouterr().err
