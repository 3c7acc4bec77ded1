from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curation import BuildConfig, UserError
from curation.evaluate import Evaluation, ReplayGrounder, best_threshold, main
from curation.grounding import with_threshold
from curation.language.phrases import PhraseExtractor
from curation.quality.truth import Score, TrueObject, TrueRow, match, read_truth, score
from curation.records import Box, Pair
from tests.curation.conftest import caption, row, write_tar

LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)


def thing(phrase: str, box: tuple[float, float, float, float], named: bool = True) -> TrueObject:
    return TrueObject(phrase.split()[-1], phrase, Box(*box, score=1.0), named)


def pair(phrase: str, box: tuple[float, float, float, float], key: str = "a") -> Pair:
    nothing = dict.fromkeys(Pair.__dataclass_fields__)
    return Pair(**{**nothing, "key": key, "phrase": phrase, "box": box, "score": 0.5})  # type: ignore[arg-type]


def test_a_pair_is_right_when_its_phrase_names_what_is_in_its_box():
    objects = [thing("a red fox", LEFT), thing("a blue car", RIGHT)]
    assert match(pair("a red fox", (0.05, 0.0, 0.5, 1.0)), objects) == 0
    assert match(pair("red fox", LEFT), objects) == 0  # named, though not in the caption's very words
    assert match(pair("a red fox", (0.3, 0.0, 0.8, 1.0)), objects) is None
    assert match(pair("a red fox", RIGHT), objects) is None
    assert match(pair("a table", LEFT), objects) is None
    assert match(pair("a firefox", LEFT), objects) is None


def test_of_two_of_a_kind_the_captions_words_decide():
    objects = [thing("a red fox", LEFT), thing("a white fox", RIGHT)]
    assert match(pair("a white fox", RIGHT), objects) == 1
    assert match(pair("a white fox", LEFT), objects) is None


def test_recall_asks_for_named_objects_of_wanted_rows_once_each():
    truth = {
        "a": TrueRow("", (thing("a red fox", LEFT), thing("a blue car", RIGHT))),
        "b": TrueRow("duplicate", (thing("a red fox", LEFT),)),
        "c": TrueRow("wrong_caption", (thing("a dog", LEFT, named=False),)),
    }
    mined = [pair("a red fox", LEFT), pair("the fox", LEFT), pair("a fox", LEFT, "b"), pair("a cat", LEFT, "c")]
    found = score(mined, truth)
    assert found == Score(mined=4, right=3, named=2, found=1)
    assert (found.precision, found.recall) == (0.75, 0.5)


def test_the_best_threshold_has_the_greatest_f1_at_the_precision_asked_for():
    curve = [(0.1, Score(999, 800, 999, 800)), (0.3, Score(800, 730, 999, 730)), (0.5, Score(500, 490, 999, 490))]
    assert best_threshold(curve)[0] == 0.3
    few = [(at, Score(s.mined // 10, s.right // 10, 99, s.found // 10)) for at, s in curve]
    assert best_threshold(few)[0] == 0.5  # 73 of 80 may be luck
    assert best_threshold(curve[:1])[0] == 0.1
    flat = [(0.1, Score(999, 930, 999, 940)), (0.5, Score(960, 925, 999, 935)), (0.9, Score(300, 299, 999, 299))]
    assert best_threshold(flat)[0] == 0.5  # a little recall is not worth many false boxes


class CountingGrounder:
    """The first phrase on the left with 0.9, the others on the right with 0.3."""

    def __init__(self) -> None:
        self.asked = 0

    def ground(self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]) -> list[list[list[Box]]]:
        self.asked += len(images)
        return [
            [[Box(*LEFT, score=0.9)] if i == 0 else [Box(*RIGHT, score=0.3)] for i in range(len(r))] for r in phrases
        ]


@pytest.fixture
def known(tmp_path: Path) -> Path:
    """Six rows "a red fox next to a blue car on a table" and the like; the second thing is where no box is found."""
    write_tar(tmp_path / "known" / "00000.tar", [row(index) for index in range(6)])
    rows = []
    for index in range(6):
        first, second = caption(index).removesuffix(" on a table").split(" next to ")
        found = [(first, LEFT), (second, (0.8, 0.0, 1.0, 0.2))]
        objects = [{"concept": p.split()[-1], "phrase": p, "box": list(box), "named": True} for p, box in found]
        rows.append({"key": f"00000{index:04d}", "dirt": "", "objects": objects})
    (tmp_path / "known" / "truth").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "known" / "truth" / "truth.parquet")
    return tmp_path / "known"


def test_thresholds_and_filters_are_applied_to_one_run_of_the_detector(known: Path, extractor: PhraseExtractor):
    detector = CountingGrounder()
    grounder = ReplayGrounder(detector)
    evaluation = Evaluation(known, BuildConfig(box_threshold=0.2), read_truth(known), grounder, extractor)
    strict, loose = (score(evaluation.mine(at), evaluation.truth) for at in (0.5, 0.2))
    assert (strict.precision, strict.recall) == (1.0, 0.5)
    assert loose.mined > strict.mined and loose.right == strict.right
    assert loose.precision < 1 and loose.recall == 0.5
    evaluation.mine(0.2, {"nms_iou": 1.0})
    assert detector.asked == 6


def test_a_checkpoint_carries_its_operating_point(tmp_path: Path):
    assert with_threshold(BuildConfig(), str(tmp_path)).box_threshold == 0.25
    (tmp_path / "curation.json").write_text('{"box_threshold": 0.4}')
    assert with_threshold(BuildConfig(), str(tmp_path)).box_threshold == 0.4
    assert with_threshold(BuildConfig(box_threshold=0.1), str(tmp_path)).box_threshold == 0.1
    (tmp_path / "curation.json").write_text("{}")
    with pytest.raises(UserError, match="no operating point"):
        with_threshold(BuildConfig(), str(tmp_path))


def test_the_command_prints_figures_and_the_curve(known: Path, tiny_detector: Path, tmp_path: Path, capsys):
    arguments = ["--input", str(known), "--detector", str(tiny_detector), "--device", "cpu", "--box-threshold", "0.05"]
    assert main([*arguments, "--json", "--csv", str(tmp_path / "curve.csv")]) == 0
    figures = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(f["name"], f["bar"]) for f in figures] == [("curation.precision", 0.9), ("curation.recall", 0.6)]
    assert len((tmp_path / "curve.csv").read_text().splitlines()) == 20
    assert (tmp_path / "curve.svg").is_file()
    assert main(["--input", str(tmp_path), "--detector", str(tiny_detector)]) == 2
    assert "no truth" in capsys.readouterr().err


def test_the_miner_imports_nothing_of_the_other_packages():
    sources = Path(__file__).parents[2] / "curation"
    others = re.compile(r"umm_bench|^\s*(from|import) (baselines|benchmarks|reports|tests)\b", re.MULTILINE)
    assert not [path for path in sources.rglob("*.py") if others.search(path.read_text())]
