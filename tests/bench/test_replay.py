"""The rules of others on pictures of known features: what each of them does not see."""

import json
from pathlib import Path

import numpy as np
import pytest

from curation.records import Box
from umm_bench import replay
from umm_bench.bench.judging import protocols
from umm_bench.bench.judging.protocols import Models, Picture
from umm_bench.bench.store import OpenAnswers
from umm_bench.errors import UserError

FEATURES = {
    "a-1": (1.0, 0.0), "a-2": (0.6, 0.8), "b-1": (0.0, 1.0),
    "copy": (1.0, 0.0), "between": (0.8, 0.6), "half": (1.0, 0.0), "crop of half": (0.0, 1.0),
}  # fmt: skip


class Eyes:
    """An encoder, and a detector that finds what `boxes` says, whose models are these tables."""

    name = "mini"

    def __init__(self, boxes=()):
        self._boxes = dict(boxes)

    def images(self, paths):
        for path in paths:
            if path.stem not in FEATURES:
                raise UserError(f"no image file at {path}")
        return np.array([FEATURES[path.stem] for path in paths])

    def texts(self, texts):
        return np.array([(0.6, 0.8) for _ in texts])

    def crop(self, path, edges):
        return np.array(FEATURES[f"crop of {path.stem}"])

    def boxes(self, path, noun):
        return [Box(0.5, 0.5, 1, 1, 0.9)] if self._boxes.get((path.stem, noun)) else []

    def edges(self, path, noun):
        return [(0, 0, 1, 1)] if self._boxes.get((path.stem, noun)) else []


def picture(name: str, *subjects: tuple[str, ...]) -> Picture:
    nouns = tuple(f"noun {of[0]}" for of in subjects)
    return Picture(Path(f"{name}.png"), nouns, tuple(tuple(Path(f"{r}.png") for r in of) for of in subjects), "text")


def scores(rule: str, shown: Picture, boxes=()) -> dict[str, float]:
    eyes = Eyes(boxes)
    (found,) = [each for each in protocols.RULES if each.name == rule]
    return dict(found.score(shown, Models(eyes, eyes, eyes)))


def test_one_input_picture_prefers_the_copy_and_all_of_them_the_subject():
    copy, between = picture("copy", ("a-1", "a-2")), picture("between", ("a-1", "a-2"))
    assert scores("bench", copy)["dino"] == pytest.approx(0.8)
    assert scores("bench", between)["dino"] == pytest.approx((0.8 + 0.96) / 2)
    for rule in ("kosmos_g", "dreambench_plus"):
        assert scores(rule, copy) == pytest.approx({"dino": 1.0, "clip_i": 100.0, "clip_t": 60.0})
        assert scores(rule, between)["dino"] == pytest.approx(0.8)


def test_a_lost_subject_is_averaged_away_by_uno_and_given_the_whole_image_by_psr():
    lost = picture("half", ("a-1",), ("b-1",))
    assert scores("uno", lost)["dino"] == pytest.approx(0.5)
    found = {("half", "noun b-1"): True, ("a-1", "noun a-1"): False}
    assert scores("psr", lost, found)["dino"] == pytest.approx(1.0)  # a: the whole image, b: its crop
    assert scores("bench_crop", lost, found)["dino"] == pytest.approx(0.5)  # a: 0, b: its crop


def test_what_psr_cannot_score_is_left_out_and_others_say_which_it_is():
    eyes = Eyes()
    found = {("one", 1): [(0, picture("copy", ("a-1",))), (0, picture("gone", ("a-1",)))]}
    with pytest.raises(UserError, match=r"gone\.png"):
        list(replay.replay(found, Models(eyes, eyes, eyes)))
    (rule,) = [each for each in protocols.RULES if each.name == "psr"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "RULES", (rule,))
        (dino, _) = replay.replay(found, Models(eyes, eyes, eyes))
    assert dino.means == {"one": 1.0} and dino.left_out == 1


def test_ranks_move_by_the_rules_alone():
    eyes = Eyes()
    shown = {("copies", 1): "copy", ("draws", 1): "between"}
    found = {key: [(0, picture(name, ("a-1", "a-2")))] for key, name in shown.items()}
    rows = list(replay.replay(found, Models(eyes, eyes, eyes)))
    ranks = {row.rule.name: row.ranks for row in rows if row.metric == "dino"}
    assert ranks["bench"] == {"draws": 1, "copies": 2} and ranks["kosmos_g"] == {"draws": 2, "copies": 1}
    told = {figure.name: figure.value for figure in replay.figures(rows)}
    assert told["replay.kosmos_g.dino.1.tau"] == -1 and told["replay.kosmos_g.dino.1.copies"] == 1


def test_a_run_is_replayed_from_its_store(bench, tmp_path, capsys):
    assert bench("--methods", "painter,other", "--pairs", "1") == 0
    capsys.readouterr()
    words = ["--store", str(tmp_path / "reports"), "--json"]
    assert replay.main([*words, "--dino", "mini"]) == 0
    rows = {row["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert {f"replay.{rule.name}.dino.1.painter" for rule in protocols.RULES} <= rows.keys()
    assert "replay.uno.dino.2.painter" in rows and "replay.kosmos_g.dino.2.painter" not in rows
    with OpenAnswers(tmp_path / "reports") as answers:
        kept = answers.rows("select * from replays")
    found = {f"replay.{r['rule']}.{r['metric']}.{r['subject_count']}.{r['method']}": r for r in kept}
    assert found.keys() == {name for name in rows if not name.endswith(".tau")}
    assert all(round(row["mean"], 4) == rows[name]["value"] for name, row in found.items())
    assert {row["rule"]: row["place"] for row in kept} == {rule.name: n for n, rule in enumerate(protocols.RULES, 1)}
    assert replay.main(["--store", str(tmp_path / "none")]) == 2
    assert replay.main([*words, "--run", "run-x"]) == 2
    assert replay.main([*words, "--dino", "/nowhere"]) == 2
    assert capsys.readouterr().err.count("error: ") == 3
