"""The fusion, held against the paper's equation."""

import pytest
import torch

from umm_bench.errors import UserError
from umm_bench.umm.guidance import (
    TEXT,
    UNCONDITIONAL,
    Differences,
    Guidance,
    Level,
    fused_guidance,
    fusion_levels,
    fusion_weights,
)

IMAGE = frozenset({0})


@pytest.mark.parametrize("alpha", [0.25, 0.7])
def test_one_subject_is_the_equation_of_the_paper(alpha):
    eps_0, eps_y, eps_u = torch.randn(3, 2, 4, 8, 8)
    s = 7.5
    weights = fusion_weights(fusion_levels([alpha]), s, s)
    fused = fused_guidance({UNCONDITIONAL: eps_0, IMAGE: eps_u, TEXT: eps_y}, weights)
    expected = eps_0 + s * (alpha * (eps_u - eps_0) + (1 - alpha) * (eps_y - eps_0))
    assert torch.allclose(fused, expected, atol=1e-5)


def test_separate_scales_are_what_text_and_subject_add():
    eps_0, eps_y, eps_u = torch.randn(3, 2, 4, 8, 8)
    weights = fusion_weights(fusion_levels([0.6]), 7.5, 3.0)
    fused = fused_guidance({UNCONDITIONAL: eps_0, IMAGE: eps_u, TEXT: eps_y}, weights)
    expected = eps_0 + 7.5 * (eps_y - eps_0) + 3.0 * 0.6 * (eps_u - eps_y)
    assert torch.allclose(fused, expected, atol=1e-5)
    assert sum(weights.values()) == pytest.approx(1)


def test_no_branch_of_weight_zero():
    s = 5.0
    assert fusion_weights(fusion_levels([]), s, s) == {UNCONDITIONAL: -4.0, TEXT: 5.0}
    assert fusion_weights(fusion_levels([1.0]), s, s) == {UNCONDITIONAL: -4.0, IMAGE: 5.0}
    assert fusion_weights(fusion_levels([0.5]), 1.0, 1.0) == {IMAGE: 0.5, TEXT: 0.5}
    assert fusion_weights(fusion_levels([0.5]), s, 0.0) == {UNCONDITIONAL: -4.0, TEXT: 5.0}


def test_the_first_branch_may_be_any():
    """Guidance off leaves no eps_0; the sum is the same from whichever branch the differences are taken."""
    eps_y, eps_u = torch.randn(2, 1, 4, 8, 8)
    fused = fused_guidance({IMAGE: eps_u, TEXT: eps_y}, {IMAGE: 0.3, TEXT: 0.7})
    assert torch.allclose(fused, 0.3 * eps_u + 0.7 * eps_y, atol=1e-6)


def test_intervals_are_text_first_or_image_first():
    def branches(progress, **intervals):
        return set(Guidance((0.7,), **intervals).weights(progress, 5.0))

    delayed, early = {"subject_interval": (0.25, 1.0)}, {"subject_interval": (0.0, 0.6)}
    assert branches(0.2, **delayed) == {UNCONDITIONAL, TEXT}
    assert branches(0.25, **delayed) == branches(0.59, **early) == {UNCONDITIONAL, TEXT, IMAGE}
    assert branches(0.6, **early) == {UNCONDITIONAL, TEXT}
    assert branches(0.1, text_interval=(0.2, 0.8)) == {IMAGE, TEXT}
    assert branches(0.8, text_interval=(0.2, 0.8)) == {IMAGE, TEXT}
    # the scale of the subject holds where the guidance by text is off
    weights = Guidance((0.5,), subject_scale=4.0, text_interval=(0.0, 0.5)).weights(0.9, 5.0)
    assert weights == {IMAGE: 2.0, TEXT: -1.0}


def test_alpha_schedules():
    def alpha(schedule, progress):
        return Guidance((schedule,)).levels(progress)[0].weight

    assert [alpha([0.25, 0.5, 0.75], i / 6) for i in range(6)] == [0.25, 0.25, 0.5, 0.5, 0.75, 0.75]
    assert alpha(lambda progress: 1 - progress, 0.25) == 0.75
    with pytest.raises(UserError, match=r"alpha is 1\.5"):
        alpha(lambda progress: 2 * progress, 0.75)
    with pytest.raises(UserError, match="empty"):
        alpha([], 0.0)


@pytest.mark.parametrize("interval", [(0.5, 0.2), (-0.1, 1.0), (0.0, 1.1)])
def test_bad_intervals_and_scales(interval):
    with pytest.raises(UserError, match="between 0 and 1"):
        Guidance(text_interval=interval)
    with pytest.raises(UserError, match="between 0 and 1"):
        Guidance(subject_interval=interval)
    with pytest.raises(UserError, match="negative"):
        Guidance(subject_scale=-1.0)


def test_differences_are_exact_when_they_do_not_change():
    """eps_k(t) = drift(t) + constant_k: the fast mode must then be exact, with fewer evaluations."""
    differences, weights = Differences(period=4), {UNCONDITIONAL: -4.0, IMAGE: 3.0, TEXT: 2.0}
    constants, evaluations = {branch: torch.randn(1, 4, 2, 2) for branch in weights}, []
    for step in range(8):
        true = {branch: constant + step for branch, constant in constants.items()}
        branches = differences.branches(step, step / 8, weights)
        evaluations.append(len(branches))
        complete = differences.complete({branch: true[branch] for branch in branches}, weights)
        assert all(torch.allclose(complete[branch], true[branch], atol=1e-5) for branch in weights)
    assert evaluations == [3, 2, 2, 2, 3, 1, 2, 1]


def test_the_difference_taken_is_the_latest():
    """Zero-dimensional numbers: eps_y - eps_u is of step 0, eps_0 - eps_u of step 4."""
    differences, weights = Differences(period=10), {UNCONDITIONAL: -4.0, IMAGE: 3.0, TEXT: 2.0}

    def at(step, **eps):
        names = {"zero": UNCONDITIONAL, "image": IMAGE, "text": TEXT}
        assert {names[name] for name in eps} == set(differences.branches(step, step / 8, weights))
        return differences.complete({names[name]: torch.tensor(value) for name, value in eps.items()}, weights)

    at(0, zero=1.0, image=2.0, text=3.0)
    assert at(4, zero=5.0, image=10.0)[TEXT] == 11.0
    last = at(5, image=20.0)
    assert (last[UNCONDITIONAL], last[TEXT]) == (15.0, 21.0)


def test_a_branch_not_seen_before_is_evaluated():
    differences = Differences(period=10)
    first = {UNCONDITIONAL: -4.0, TEXT: 5.0}
    differences.complete({branch: torch.zeros(1) for branch in differences.branches(0, 0.0, first)}, first)
    then = {UNCONDITIONAL: -4.0, IMAGE: 3.0, TEXT: 2.0}
    assert differences.branches(1, 0.1, then) == list(then)


def test_zero_and_one_and_no_subject_need_one_branch():
    text, both = (Level(1.0, frozenset()),), (Level(1.0, frozenset({0, 1})),)
    assert fusion_levels([]) == text
    assert fusion_levels([0.0, 0.0]) == text
    assert fusion_levels([1.0, 1.0]) == both


def test_several_subjects_share_levels_of_equal_alpha():
    levels = fusion_levels([0.5, 0.5, 0.25])
    assert [(level.weight, set(level.subjects)) for level in levels] == [
        (0.25, {0, 1, 2}),
        (0.25, {0, 1}),
        (0.5, set()),
    ]


@pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan")])
def test_alpha_outside_is_an_error(alpha):
    with pytest.raises(UserError, match="between 0"):
        fusion_levels([0.5, alpha])
