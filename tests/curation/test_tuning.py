"""Thresholds at a rate of boxes for absent phrases: the statistics, the labels, and what a build makes of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curation import BuildConfig, UserError
from curation.build import main as build
from curation.evaluate import main
from curation.grounding import with_threshold
from curation.quality import tuning
from curation.quality.labels import Labelled, of_corpus, of_json, spoken
from curation.quality.operating import Answers, ask, operating_point
from curation.records import Box
from tests.curation.conftest import encoded, picture
from tests.curation.test_evaluate import known  # noqa: F401  # a fixture

LEFT = (0.0, 0.0, 0.5, 1.0)


def answers(pictures: int, seed: int = 0, shift: float = 0.3) -> Answers:
    """Absent phrases score 0..1, present ones higher by ``shift``; one of five boxes is beside its thing."""
    rng = np.random.default_rng(seed)
    of = np.arange(pictures)
    present = np.clip(rng.random(pictures) + shift, 0, 1)
    return Answers(pictures, rng.random(2 * pictures), np.repeat(of, 2), present, of, rng.random(pictures) < 0.8)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.3])
def test_the_threshold_is_the_least_that_keeps_the_rate(rate: float):
    found = answers(400)
    point = operating_point(found, rate)
    assert point.accepted == np.mean(found.absent_N >= point.threshold) <= rate
    assert np.mean(found.absent_N >= point.threshold - 2e-4) > rate
    assert point.recall == pytest.approx(np.mean(found.right_M & (found.present_M >= point.threshold)))


def test_scores_that_are_equal_are_accepted_or_refused_together():
    scores = np.array([0.9] * 3 + [0.2] * 7)
    of = np.arange(10)
    point = operating_point(Answers(10, scores, of, scores, of, np.ones(10, bool)), 0.2)
    assert point.accepted == 0 and 0.9 < point.threshold < 0.9002
    everything = operating_point(Answers(10, scores, of, scores, of, np.ones(10, bool)), 0.99)
    assert everything.threshold == pytest.approx(0.2001)


def test_intervals_hold_the_truth_and_narrow_with_more_pictures():
    """Of uniform scores the threshold at a rate is one less the rate; each of 20 samples has an interval of 95 %."""
    rate, inside, widths = 0.1, 0, []
    for seed in range(20):
        low, high = operating_point(answers(300, seed), rate).threshold_interval
        inside += low <= 1 - rate <= high
        widths.append(high - low)
    assert inside >= 17
    wide, narrow = (operating_point(answers(n), rate).threshold_interval for n in (100, 2500))
    assert (wide[1] - wide[0]) > 2.5 * (narrow[1] - narrow[0])


def test_detectors_are_compared_on_the_same_resamples():
    weak, strong = (operating_point(answers(400, shift=shift), 0.1) for shift in (0.2, 0.5))
    gain, low, high = tuning.difference(strong, weak)
    assert gain == strong.recall - weak.recall > 0.1 and 0 < low < gain < high
    apart = max(strong.recall_interval[1] - strong.recall_interval[0], 0.01)
    assert high - low < 3 * apart
    assert tuning.difference(weak, weak) == (0, 0, 0)


class Knowing:
    """Finds a fox on the left with certainty, and a car here and there."""

    def ground(self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]) -> list[list[list[Box]]]:
        found = {"fox": [Box(*LEFT, 0.3), Box(0.6, 0.0, 1.0, 0.2, 0.2)], "car": [Box(*LEFT, 0.6)]}
        return [[found.get(phrase, []) for phrase in row] for row in phrases]


def test_the_best_box_of_each_phrase_is_what_counts():
    data = encoded(picture(1))
    there, beside = (Box(*LEFT, 1.0),), (Box(0.5, 0.0, 1.0, 1.0, 1.0),)
    labelled = [
        Labelled("a", data, {"fox": there}, ("car", "dog")),
        Labelled("b", data, {"fox": beside, "dog": there}, ()),
        Labelled("c", b"broken", {"fox": there}, ("car",)),  # left out
    ]
    found = ask(Knowing(), labelled)
    assert found.pictures == 2
    assert sorted(zip(found.absent_of_N.tolist(), found.absent_N.tolist(), strict=True)) == [(0, 0.0), (0, 0.6)]
    rows = sorted(zip(found.present_of_M.tolist(), found.present_M.tolist(), found.right_M.tolist(), strict=True))
    assert rows == [(0, 0.3, True), (1, 0.0, False), (1, 0.3, False)]
    with pytest.raises(UserError, match="nothing to tune on"):
        ask(Knowing(), labelled[2:])


def write_labels(folder: Path, lvis: bool = False, **changes) -> Path:
    """Six pictures, the even ones of a cat on the left, the others of a traffic light on the right."""
    (folder / "val").mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number in range(6):
        name = f"{number:012d}.jpg"
        (folder / "val" / name).write_bytes(encoded(picture(number, 96, 64)))
        image = {"id": number, "width": 96, "height": 64}
        if lvis:
            image |= {"coco_url": f"http://images.cocodataset.org/val/{name}", "neg_category_ids": [3]}
        else:
            image["file_name"] = name
        images.append(image)
        box = [0, 0, 48, 64] if number % 2 == 0 else [48, 0, 48, 64]
        annotations.append({"id": number, "image_id": number, "category_id": 1 + number % 2, "bbox": box})
    annotations.append({"id": 9, "image_id": 0, "category_id": 3, "bbox": [0, 0, 96, 64], "iscrowd": 1})
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "traffic light"}, {"id": 3, "name": "bow"}]
    if lvis:
        categories[1] = {"id": 2, "name": "traffic_light", "synonyms": ["traffic_light", "stoplight"]}
        categories[2] = {"id": 3, "name": "bow_(weapon)", "synonyms": ["bow_(weapon)"]}
    path = folder / "labels.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories} | changes))
    return path


def test_coco_is_read_directly_and_what_has_no_box_is_absent(tmp_path: Path):
    labelled, missing = of_json(write_labels(tmp_path), tmp_path / "val")
    assert (len(labelled), missing) == (6, 0)
    first, second = labelled[:2]
    assert first.present == {"cat": (Box(0.0, 0.0, 0.5, 1.0, 1.0),)}
    assert first.absent == ("traffic light",)  # a crowd of bows is there, though it has no box of one
    assert second.present == {"traffic light": (Box(0.5, 0.0, 1.0, 1.0, 1.0),)}
    assert sorted(second.absent) == ["bow", "cat"]
    assert first.image().size == (96, 64)


def test_in_lvis_only_what_was_looked_for_is_absent(tmp_path: Path):
    labelled, missing = of_json(write_labels(tmp_path, lvis=True), tmp_path)
    assert (len(labelled), missing) == (6, 0)
    assert (
        labelled[0].absent == () and labelled[1].absent == ("bow",) and labelled[1].present.keys() == {"traffic light"}
    )
    assert spoken({"name": "a_b_(c)"}) == "a b"


def test_pictures_that_are_not_there_are_counted(tmp_path: Path):
    path = write_labels(tmp_path)
    (tmp_path / "val" / f"{3:012d}.jpg").unlink()
    labelled, missing = of_json(path, tmp_path / "val")
    assert (len(labelled), missing) == (5, 1)


def test_absent_things_of_a_corpus_are_other_rows_things(known: Path):  # noqa: F811
    labelled = of_corpus(known, BuildConfig())
    assert len(labelled) == 6
    names = {name for one in labelled for name in one.present}
    for one in labelled:
        assert len(one.present) == 2 and len(one.absent) == 2 and set(one.absent) <= names - set(one.present)
        assert not {name.split()[-1] for name in one.absent} & {name.split()[-1] for name in one.present}
    assert of_corpus(known, BuildConfig()) == labelled


def test_a_saved_threshold_is_read_by_the_build_and_travels_with_it(
    tmp_path: Path, corpus: Path, tiny_detector: Path, capsys
):
    labels, point = write_labels(tmp_path / "set"), tmp_path / "point.json"
    tune = ["--tune", "--labels", str(labels), "--images", str(labels.parent / "val"), "--device", "cpu"]
    tune += ["--detector", str(tiny_detector)]
    assert main([*tune, "--false-accepts", "0.25", "--save", str(point)]) == 0
    assert "boxes for absent" in capsys.readouterr().out
    saved = json.loads(point.read_text())
    assert saved["false_accepts"] <= 0.25 and saved["pictures"] == 6 and saved["labels"] == "labels.json"
    low, high = saved["box_threshold_interval"]
    assert low <= saved["box_threshold"] <= high
    assert with_threshold(BuildConfig(operating_point=str(point)), None).box_threshold == saved["box_threshold"]
    assert with_threshold(BuildConfig(operating_point=str(point), box_threshold=0.9), None).box_threshold == 0.9

    mine = ["--input", str(corpus), "--output", str(tmp_path / "out"), "--detector", str(tiny_detector)]
    mine += ["--device", "cpu", "--limit", "2"]
    assert build([*mine, "--operating-point", str(point)]) == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["config"]["box_threshold"] == saved["box_threshold"]
    assert manifest["operating_point"] == saved
    capsys.readouterr()

    assert main([*tune, "--false-accepts", "0.5", "0.1", "--json"]) == 0
    figures = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [f["name"].split(".")[1] for f in figures] == ["threshold", "false_accepts", "recall"] * 2
    assert figures[1]["value"] <= 0.5 and figures[4]["value"] <= 0.1 and figures[0]["value"] <= figures[3]["value"]


def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, tiny_detector: Path, corpus: Path, capsys):
    labels, broken, empty = write_labels(tmp_path), tmp_path / "broken.json", tmp_path / "empty.json"
    broken.write_text("{")
    empty.write_text('{"images": [], "annotations": [{}], "categories": []}')
    (tmp_path / "none").mkdir()
    detector = ["--detector", str(tiny_detector)]
    for arguments, said in (
        (["--tune", "--labels", str(tmp_path / "no.json")], "cannot be read"),
        (["--tune", "--labels", str(broken)], "not COCO's or LVIS' json"),
        (["--tune", "--labels", str(empty)], "not COCO's or LVIS' json"),
        (["--tune", "--labels", str(labels), "--images", str(tmp_path / "none")], "none of its 6 pictures"),
        (["--tune", "--false-accepts", "0"], "--false-accepts must be between 0 and 1"),
        (["--tune", "--false-accepts", "much"], "--false-accepts must be a number"),
        (["--false-accepts", "0.1"], "is for --tune"),
        (["--labels", str(labels)], "is for --tune"),
        (["--tune", "--images", str(tmp_path)], "is for --labels"),
    ):
        assert main([*arguments, *detector]) == 2, arguments
        error = capsys.readouterr().err.strip().splitlines()
        assert len(error) == 1 and error[0].startswith("error: ") and said in error[0]
    assert main(["--detector", "a", "b"]) == 2
    assert "--tune" in capsys.readouterr().err
    point = tmp_path / "point.json"
    for text in ("{}", '{"box_threshold": 7}', "nonsense"):
        point.write_text(text)
        with pytest.raises(UserError, match="no operating point"):
            with_threshold(BuildConfig(operating_point=str(point)), None)
    assert (
        build(["--input", str(corpus), "--output", str(tmp_path / "o"), "--operating-point", "nowhere", *detector]) == 2
    )
    assert "nowhere is no operating point" in capsys.readouterr().err
