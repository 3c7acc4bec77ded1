"""What people's votes say: agreement, preference, who is counted, and metrics beside people."""

import numpy as np
import pytest

from umm_bench.bench.judging.votes import (
    Shown,
    Vote,
    agreement,
    attentive,
    krippendorff,
    leads,
    majority,
    preferences,
)


def units(*observers: str) -> list[list[str]]:
    """From a row of answers an observer; a dot is none."""
    return [[answer for answer in unit if answer != "."] for unit in zip(*observers, strict=True)]


@pytest.mark.parametrize(
    ("observers", "alpha"),
    [
        (("0100000010", "1110010000"), 0.095),  # A: binary, two observers
        (("aabbdcccedda", "babbbccceddd"), 0.692),  # B: nominal, two observers
        (("123321412...", "12332241" + "25.3", ".33323422" + "51.", "12332441" + "251."), 0.743),  # C: gaps
    ],
)
def test_alpha_is_that_of_krippendorffs_examples(observers, alpha):
    assert krippendorff(units(*observers)) == pytest.approx(alpha, abs=5e-4)


def test_alpha_is_1_for_full_agreement_and_nothing_where_nothing_can_be_said():
    assert krippendorff([["left", "left"], ["right", "right"]]) == 1.0
    assert krippendorff([["left", "left"], ["left", "left"]]) is None
    assert krippendorff([["left"], ["right"]]) is None
    assert krippendorff([["left", "right"]] * 50) < -0.9  # they disagree on purpose
    random = np.random.default_rng(0)
    chance = krippendorff([list(random.choice(["left", "right", "tie"], 3)) for _ in range(2000)])
    assert chance == pytest.approx(0, abs=0.03)


def pair(left="umm", right="sd", case="fox", **scores) -> Shown:
    own = {name: value for name, value in scores.items()}
    return Shown(left, right, (case,), {n: v[0] for n, v in own.items()}, {n: v[1] for n, v in own.items()})


def test_of_two_methods_a_strength_is_the_share_of_wins_with_one_tie_more():
    shown = {("b", n): pair(case=f"case {n % 5}") for n in range(20)}
    votes = [Vote("b", n, "ann", "left" if n < 14 else "tie" if n < 16 else "right") for n in range(20)]
    first, second = preferences(votes, shown)
    assert (first.method, second.method) == ("umm", "sd")
    assert first.strength.mean == pytest.approx((14 + 1 + 0.5) / 21, abs=1e-4)
    assert first.strength.mean + second.strength.mean == pytest.approx(1)
    assert first.win_rate == pytest.approx(15 / 20) and first.votes == 20 and first.strength.clusters == 5
    assert 0 < first.strength.low < first.strength.mean < first.strength.high < 1
    assert second.strength.low == pytest.approx(1 - first.strength.high, abs=1e-4)


def test_which_side_a_method_was_on_changes_nothing():
    random = np.random.default_rng(1)
    names = ("sd", "umm", "dreambooth")
    two = [random.choice(names, 2, replace=False) for _ in range(60)]
    shown = {("b", n): pair(*map(str, each), case=f"case {n % 6}") for n, each in enumerate(two)}
    votes = [Vote("b", n, "ann", str(random.choice(["left", "right", "tie"]))) for n in range(60)]
    turned = {key: Shown(each.right, each.left, each.cluster, {}, {}) for key, each in shown.items()}
    flip = {"left": "right", "right": "left", "tie": "tie"}
    flipped = [Vote(v.ballot, v.pair, v.voter, flip[v.answer]) for v in votes]
    for one, other in zip(preferences(votes, shown), preferences(flipped, turned), strict=True):
        assert one.method == other.method and one.win_rate == pytest.approx(other.win_rate)
        assert one.strength.mean == pytest.approx(other.strength.mean, abs=1e-5)
        assert one.strength.low == pytest.approx(other.strength.low, abs=1e-4)


def test_of_few_subjects_there_is_no_interval_and_of_no_vote_nothing():
    shown = {("b", 1): pair()}
    (first, _) = preferences([Vote("b", 1, "ann", "left")], shown)
    assert first.strength.low is None and 0.5 < first.strength.mean < 1
    assert preferences([], shown) == []


def test_who_misses_checks_is_left_out_and_who_saw_none_is_not():
    expected = {("b", n): "left" for n in range(4)}
    votes = [Vote("b", n, "careful", "left" if n else "right") for n in range(4)]
    votes += [Vote("b", n, "careless", "left" if n < 2 else "tie") for n in range(4)]
    votes += [Vote("b", 9, "early", "left")]
    assert attentive(votes, expected) == ({"careful", "early"}, {"careless"})


def test_a_metric_agrees_with_people_where_it_puts_their_picture_first():
    shown = {
        ("b", 1): pair(dino=(0.9, 0.1), fid=(9, 1), case="a"),
        ("b", 2): pair(dino=(0.9, 0.1), fid=(1, 9), case="b"),
        ("b", 3): pair(dino=(0.5, 0.5), case="c"),
        ("b", 4): pair(dino=(0.9, 0.1), case="d"),
    }
    answers = {1: "ll", 2: "rr", 3: "ll", 4: "lr"}  # people do not decide the fourth
    words = {"l": "left", "r": "right"}
    votes = [Vote("b", n, f"voter {i}", words[a]) for n, of in answers.items() for i, a in enumerate(of)]
    people = majority(votes)
    assert people == {("b", 1): 1.0, ("b", 2): -1.0, ("b", 3): 1.0, ("b", 4): 0.0}
    by_dino = agreement(leads(shown, "dino", ()), people, shown)
    assert by_dino.mean == pytest.approx((1 + 0 + 0.5) / 3) and by_dino.samples == 3
    assert agreement(leads(shown, "fid", {"fid"}), people, shown).mean == 0
    assert agreement(leads(shown, "fid", ()), people, shown).mean == 1
    assert agreement(leads(shown, "none", ()), people, shown) is None
