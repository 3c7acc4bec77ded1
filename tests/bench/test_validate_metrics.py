"""How right the labels of several subjects are, on pairs that the world composes."""

import json

import pytest

from umm_bench import validate_metrics
from umm_bench.metrics.several import LABELS
from umm_bench.mini.evaluation import several
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


def test_most_labels_are_right_and_the_matrix_counts_every_subject(capsys):
    assert validate_metrics.main(["--json", "--pairs", str(PAIRS)]) == 0
    rows = {row["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    accuracy = rows["validate.failure_label.accuracy"]
    subjects = PAIRS * (6 + 5)  # two in each picture: six pictures of two classes, five of one
    assert accuracy["bar"] == 0.85 and f"{subjects} subjects of {PAIRS} pairs" in accuracy["note"]
    assert accuracy["value"] >= LEAST
    counts = {">".join(name.split(".")[-2:]): row["value"] for name, row in rows.items() if ".confusion." in name}
    assert len(counts) == len(LABELS) ** 2 and sum(counts.values()) == subjects
    right = sum(counts[f"{label}>{label}"] for label in LABELS)
    assert right / subjects == pytest.approx(accuracy["value"], abs=1e-4)
    for label in LABELS:
        shown = sum(counts[f"{label}>{other}"] for other in LABELS)
        assert counts[f"{label}>{label}"] / shown == pytest.approx(
            rows[f"validate.failure_label.{label}"]["value"], abs=1e-4
        )


@pytest.mark.parametrize(("words", "says"), [(["--pairs", "0"], "--pairs"), (["--encoder", "nowhere"], "nowhere")])
def test_what_cannot_be_measured_is_one_line(capsys, words, says):
    assert validate_metrics.main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and says in error
