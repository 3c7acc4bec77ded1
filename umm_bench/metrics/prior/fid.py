"""Prior FID: the Fréchet distance in place of the kernel's. For thousands of images: with few it is mostly bias."""

import numpy as np

from umm_bench.metrics.embedding import vision_encoder
from umm_bench.metrics.prior.cosine import PriorConfig
from umm_bench.metrics.prior.sets import PriorDistance, frechet_distance
from umm_bench.suites.base import Suite


class PriorFid(PriorDistance):
    """One value a method, of unit features: no number that is published for Inception's compares with it."""

    name = "prior_fid"
    lower_is_better = ("prior_fid",)

    def __init__(self, config: PriorConfig, suite: Suite) -> None:
        encoder = vision_encoder(config.model)
        super().__init__(
            encoder, f"prior_fid/1: unit features, to plain SD's images of the same prompts, {encoder.label}"
        )

    def distance(self, ours_ND: np.ndarray, theirs_ND: np.ndarray) -> float:
        return frechet_distance(ours_ND, theirs_ND)
