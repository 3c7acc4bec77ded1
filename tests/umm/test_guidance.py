"""The fusion, held against the paper's equation."""

import pytest
import torch

from umm_bench.errors import UserError
from umm_bench.umm import Level, fused_guidance, fusion_levels


@pytest.mark.parametrize("alpha", [0.25, 0.7])
def test_one_subject_is_the_equation_of_the_paper(alpha):
    eps_0, eps_y, eps_u = torch.randn(3, 2, 4, 8, 8)
    (image, text), s = fusion_levels([alpha]), 7.5
    assert image.subjects == {0} and not text.subjects
    fused = fused_guidance(eps_0, [eps_u, eps_y], [image.weight, text.weight], s)
    expected = eps_0 + s * (alpha * (eps_u - eps_0) + (1 - alpha) * (eps_y - eps_0))
    assert torch.allclose(fused, expected, atol=1e-5)


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
