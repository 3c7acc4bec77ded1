"""Distances of two sets of pictures: torchmetrics' own, on the features of an encoder of one's choice."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from umm_bench.errors import UserError
from umm_bench.metrics.base import ScoredSample, Unusable
from umm_bench.metrics.embedding import Encoder
from umm_bench.metrics.prior.cosine import PriorConfig

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


FEWEST = 4
"""Images: of fewer no distance is told."""


class PriorDistance:
    """A distance of a method's images to plain SD's of the same prompts and seeds, one value a method."""

    name: ClassVar[str]
    config_class = PriorConfig
    like = "dino"

    def __init__(self, encoder: Encoder, protocol: str) -> None:
        self.encoder, self.protocol = encoder, protocol
        self.weights: Sequence[Path] = encoder.weights

    def distance(self, ours_ND: np.ndarray, theirs_ND: np.ndarray) -> float:
        """Of two sets of unit features, row by row of one prompt and seed."""
        raise NotImplementedError

    def usable(self, samples: Sequence[ScoredSample]) -> list[ScoredSample]:
        """Those beside which plain SD's image stands, both readable."""
        return [sample for sample in samples if sample.floor is not None and self._is_readable(sample)]

    def score_set(self, samples: Sequence[ScoredSample]) -> float | None:
        pairs = [(sample.path, sample.floor) for sample in samples if sample.floor is not None]
        if len(pairs) < FEWEST:
            return None
        ours, theirs = (self.encoder.images(list(paths)) for paths in zip(*pairs, strict=True))
        return self.distance(ours, theirs)

    def _is_readable(self, sample: ScoredSample) -> bool:
        try:
            self.encoder.images([path for path in (sample.path, sample.floor) if path])
        except Unusable:
            raise
        except UserError as error:
            logger.warning("%s without %s: %s", self.name, sample.key, error)
            return False
        return True


def kernel_distance(ours_ND: np.ndarray, theirs_ND: np.ndarray) -> float:
    """KID under the kernel (cosine + 1)^3, unbiased for sets in pairs of equal noise; of a set to itself it is 0.

    torchmetrics' value, of one subset that is the whole set, so that it is one number and no draw, takes the sets for
    independent: the likeness within pairs would count as likeness of the distributions. It is taken out of the mean
    over pairs of both sets, which leaves the U-statistic of Gretton et al. (2012), equation 4.
    """
    import torch
    from torchmetrics.image.kid import KernelInceptionDistance

    size, width = ours_ND.shape
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # of the memory that features take: they are there already
        torch.default_generator.manual_seed(0)  # it draws the order
        metric = KernelInceptionDistance(feature=_as_is(width), subsets=1, subset_size=size, gamma=1.0, coef=1.0)
        metric.update(_tensor(theirs_ND), real=True)
        metric.update(_tensor(ours_ND), real=False)
        independent = float(metric.compute()[0])
    across = (ours_ND.astype(np.float64) @ theirs_ND.T.astype(np.float64) + 1) ** 3
    return independent + 2 * float(across.diagonal().mean() - across.mean()) / (size - 1)


def frechet_distance(ours_ND: np.ndarray, theirs_ND: np.ndarray) -> float:
    """FID: between Gaussians fitted to both sets. Far above 0 for small sets of one distribution."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=_as_is(ours_ND.shape[1]))
    metric.update(_tensor(theirs_ND), real=True)
    metric.update(_tensor(ours_ND), real=False)
    return float(metric.compute())


def _tensor(features_ND: np.ndarray) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.array(features_ND, np.float64))


def _as_is(width: int) -> torch.nn.Module:
    """What torchmetrics calls a feature extractor, where the features are there already."""
    from torch import nn

    extractor = nn.Identity()
    extractor.num_features = width  # type: ignore[assignment]
    return extractor
