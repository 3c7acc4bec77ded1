"""Prior KID: how far is the distribution of a method's images from that of plain SD's, of the same prompts?"""

import numpy as np

from umm_bench.metrics.embedding import vision_encoder
from umm_bench.metrics.prior.cosine import PriorConfig
from umm_bench.metrics.prior.sets import PriorDistance, kernel_distance
from umm_bench.suites.base import Suite


class PriorKid(PriorDistance):
    """One value a method. Unlike the prior cosine it does not ask that each image be plain SD's, but their kind."""

    name = "prior_kid"
    lower_is_better = ("prior_kid",)

    def __init__(self, config: PriorConfig, suite: Suite) -> None:
        encoder = vision_encoder(config.model)
        super().__init__(
            encoder,
            f"prior_kid/1: unbiased, kernel (cosine + 1)^3, to plain SD's images of the same prompts, {encoder.label}",
        )

    def distance(self, ours_ND: np.ndarray, theirs_ND: np.ndarray) -> float:
        return kernel_distance(ours_ND, theirs_ND)
