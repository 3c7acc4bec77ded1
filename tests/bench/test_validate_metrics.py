"""How right the labels of several subjects are, on pairs that the world composes."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from umm_bench import validate_metrics
from umm_bench.bench.store import OpenAnswers
from umm_bench.metrics.base import Score
from umm_bench.metrics.several import LABELS
from umm_bench.mini.evaluation import several, trial
from umm_bench.mini.world import looks

PAIRS = 8
LEAST = 0.75


def test_pairs_for_choosing_and_for_reporting_share_no_concept_and_no_training_saw_their_looks():
    tune, trial = (several.pairs(12, key) for key in (several.TUNE, several.TRIAL))
    concepts = [{design.concept for pair in pairs for design in pair.designs} for pairs in (tune, trial)]
    assert not concepts[0] & concepts[1]
    for pair in tune + trial:
        assert all(looks.held_out(d.concept, look) for d, look in zip(pair.designs, pair.looks, strict=True))
        assert pair == several.pairs(12, pair.key.rpartition("-")[0])[int(pair.key.rpartition("-")[2])]
    assert [pair.one_class for pair in trial] == [False, True] * 6


def test_each_way_to_go_wrong_shows_what_its_truth_says():
    for pair in several.pairs(6, several.TRIAL):
        by_kind = {shown.kind: shown for shown in several.ways(pair)}
        assert set(by_kind) == set(LABELS) - ({"swap"} if pair.one_class else set())
        for kind, shown in by_kind.items():
            wrong = [label for label in shown.truth if label != "right"]
            assert wrong == {"right": [], "swap": ["swap"] * 2}.get(kind, [kind])
            if kind not in ("swap", "missing"):
                changed = [a != b for a, b in zip(shown.sprites, pair.sprites, strict=True)]
                assert changed == [label != "right" for label in shown.truth]
        at = by_kind["drift"].truth.index("drift")
        drifted = looks.split_id(by_kind["drift"].sprites[at])[1]
        for look in pair.looks:
            parts = ({getattr(of, part) for part in looks.PARTS} - {None} for of in (drifted, look))
            assert not set.intersection(*parts)


def test_most_labels_are_right_and_the_matrix_counts_every_subject(capsys, tmp_path):
    words = ["--json", "--pairs", str(PAIRS), "--subjects", "3", "--store", str(tmp_path)]
    assert validate_metrics.main(words) == 0
    rows = {row["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    with OpenAnswers(tmp_path) as answers:
        kept = {row["name"]: row for row in answers.rows("select * from trial_figures")}
    assert {name: row["value"] for name, row in kept.items()} == {name: row["value"] for name, row in rows.items()}
    assert "--subjects 3" in kept["validate.AUC.dino"]["command"] and kept["validate.AUC.dino"]["note"]
    accuracy = rows["validate.failure_label.accuracy"]
    subjects = PAIRS * (6 + 5)  # two in each picture: six pictures of two classes, five of one
    assert accuracy["bar"] == 0.85 and f"{subjects} subjects of {PAIRS} pairs" in accuracy["note"]
    assert accuracy["value"] >= LEAST
    counts = {">".join(name.split(".")[-2:]): row["value"] for name, row in rows.items() if ".confusion." in name}
    assert len(counts) == len(LABELS) ** 2 and sum(counts.values()) == subjects
    right = sum(counts[f"{label}>{label}"] for label in LABELS)
    assert right / subjects == pytest.approx(accuracy["value"], abs=1e-4)
    for name in ("dino", "clip_i_crop", "masc", "gallery_rank", "copy_paste", "clip_t"):
        assert 0 <= rows[f"validate.AUC.{name}"]["value"] <= 1
    assert rows["validate.self.swapped.several"]["value"] >= rows["validate.self.swapped.dino"]["value"]
    assert {f"validate.self.{test}.dino" for test in ("impostor", "copied", "lost", "swapped")} <= rows.keys()
    for label in LABELS:
        shown = sum(counts[f"{label}>{other}"] for other in LABELS)
        assert counts[f"{label}>{label}"] / shown == pytest.approx(
            rows[f"validate.failure_label.{label}"]["value"], abs=1e-4
        )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--pairs", "0"], "--pairs"),
        (["--encoder", "nowhere"], "nowhere"),
        (["--tune", "--store", "anywhere"], "--tune measures what things were chosen on"),
    ],
)
def test_what_cannot_be_measured_is_one_line(capsys, words, says):
    assert validate_metrics.main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and says in error


@pytest.fixture(scope="module")
def composed(tmp_path_factory) -> trial.Trial:
    return trial.Trial(tmp_path_factory.mktemp("trial"), 4)


def metric_of(value) -> SimpleNamespace:
    """A metric that says `value(shown)`, of a picture known by its name."""
    return SimpleNamespace(score=lambda samples: [Score(s.key, "made up", "p/1", value(s), "") for s in samples])


def test_a_metric_that_knows_the_truth_passes_and_one_that_repeats_the_reference_is_caught(composed):
    kinds = {each.sample.key: each.kind for each in composed.shown}
    knows = {**trial.GRADES, "elsewhere": 3, "impostor on its background": 2, "copy": 2.5}
    copies = {**dict.fromkeys(kinds.values(), 0.0), "copy": 1.0, "impostor on its background": 0.9, "right": 0.5}
    told = {}
    for name, says in (("knows", knows), ("copies", copies)):
        ((_, values),) = trial.values_of(
            metric_of(lambda s, says=says: float(says[kinds[s.key]])), composed.shown
        ).items()
        rows = [*trial.agreement(name, values, ["right"], trial.WRONG), *trial.self_tests(name, values)]
        told |= {row.name: row.value for row in rows}
    assert told["validate.AUC.knows"] == 1 and told["validate.rank.knows"] == pytest.approx(1)
    assert [told[f"validate.self.{test}.knows"] for test in ("impostor", "copied", "lost")] == [1, 1, 1]
    assert [told[f"validate.self.{test}.copies"] for test in ("impostor", "copied", "lost")] == [0, 0, 1]
    ((_, values),) = trial.values_of(metric_of(lambda s: 0.7), composed.shown).items()
    rows = {row.name: row.value for row in trial.agreement("flat", values, ["right"], trial.WRONG)}
    assert rows == {"validate.AUC.flat": 0.5, "validate.rank.flat": 0.0}


def test_a_rank_counts_the_other_way_and_a_picture_without_a_score_costs_its_subject(composed):
    kinds = {each.sample.key: each.kind for each in composed.shown}
    ranks = metric_of(lambda s: 4.0 - trial.GRADES.get(kinds[s.key], 0))
    ranks.lower_is_better = ("made up",)
    ((_, values),) = trial.values_of(ranks, composed.shown).items()
    some = {key: value for key, value in values.items() if key != ("subject-0", "lost")}
    (figure, _) = trial.agreement("rank", some, ["right"], trial.WRONG)
    assert figure.value == 1 and "3 subjects" in figure.note


def test_an_impostor_stands_in_the_very_place_and_a_copy_is_the_reference(composed):
    shown = {(each.subject, each.kind): each.sample for each in composed.shown}
    for subject in composed.subjects():
        reference, impostor, copy = (
            np.asarray(Image.open(path), float)
            for path in (
                subject.references[0],
                shown[subject.id, "impostor on its background"].path,
                shown[subject.id, "copy"].path,
            )
        )
        assert np.array_equal(reference, copy)
        differs = (reference != impostor).any(axis=2)
        assert 0 < differs.mean() < 0.75 and not differs[0].any()  # the background is the same


def test_auc_counts_equals_as_half():
    assert trial.auc([1, 2], [0, 1]) == pytest.approx((1 + 0.5 + 1 + 1) / 4)
