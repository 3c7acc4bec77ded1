"""Fusion of the predictions with and without the subject (UMM-Diffusion, 2303.09319, section 3).

Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from umm_bench.errors import UserError


@dataclass(frozen=True)
class Level:
    """One branch of the fusion: its share of the prediction, and which subjects are images in it."""

    weight: float
    subjects: frozenset[int]


def fusion_levels(alphas: Sequence[float]) -> tuple[Level, ...]:
    """The branches that a list of subjects needs beside the unconditional one; their weights sum to one.

    One subject gives (1 - alpha) for h_y and alpha for h_u. Several subjects are stacked by alpha: the level
    at height tau shows every subject with alpha > tau, and weighs as much as it is high. Equal alphas
    therefore share one h_u, and no branch has zero weight: alpha = 0 leaves h_y alone, alpha = 1 leaves h_u
    alone.

    Raises UserError for an alpha outside [0, 1].
    """
    for alpha in alphas:
        if not 0.0 <= alpha <= 1.0:
            raise UserError(f"alpha is {alpha}; it must lie between 0 (text only) and 1 (image only)")
    edges = sorted({0.0, 1.0, *map(float, alphas)})
    return tuple(
        Level(top - bottom, frozenset(i for i, alpha in enumerate(alphas) if alpha > bottom))
        for bottom, top in pairwise(edges)
    )


def fused_guidance(
    eps_0_BCHW: Tensor, eps_k_BCHW: Sequence[Tensor], weights: Sequence[float], guidance_scale: float
) -> Tensor:
    """eps = eps_0 + s * sum_k w_k (eps_k - eps_0)

    With one subject, k runs over u and y with weights alpha and 1 - alpha:
    eps = eps_0 + s [ alpha (eps_u - eps_0) + (1 - alpha) (eps_y - eps_0) ].
    """
    toward_BCHW = sum(w * (eps_BCHW - eps_0_BCHW) for w, eps_BCHW in zip(weights, eps_k_BCHW, strict=True))
    return eps_0_BCHW + guidance_scale * toward_BCHW
