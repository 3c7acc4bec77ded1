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


class PriorDistance:
    """A distance of a method's images to plain SD's of the same prompts and seeds, one value a method."""

    name: ClassVar[str]
    config_class = PriorConfig
    like = "dino"

    def __init__(self, encoder: Encoder, protocol: str) -> None:
        self.encoder, self.protocol = encoder, protocol
        self.weights: Sequence[Path] = encoder.weights

    def distance(self, ours_ND: np.ndarray, theirs_ND: np.ndarray) -> float:
        """Of two sets of unit features of one size, at least two each."""
        raise NotImplementedError

    def usable(self, samples: Sequence[ScoredSample]) -> list[ScoredSample]:
        """Those beside which plain SD's image stands, both readable. None of plain SD's own: it is the other set."""
        return [sample for sample in samples if sample.floor not in (None, sample.path) and self._is_readable(sample)]

    def score_set(self, samples: Sequence[ScoredSample]) -> float | None:
        pairs = [(sample.path, sample.floor) for sample in samples if sample.floor is not None]
        if len(pairs) < 2:
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
    """KID: the unbiased squared maximum mean discrepancy under the kernel (cosine + 1)^3; both sets are of one size.

    Of one subset that is the whole set, so that it is one number and no draw. About 0, perhaps below it, for sets of
    one distribution.
    """
    import torch
    from torchmetrics.image.kid import KernelInceptionDistance

    size, width = ours_ND.shape
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # of the memory that features take: they are there already
        torch.manual_seed(0)  # it draws the order
        metric = KernelInceptionDistance(feature=_as_is(width), subsets=1, subset_size=size, gamma=1.0, coef=1.0)
        metric.update(torch.from_numpy(theirs_ND).double(), real=True)
        metric.update(torch.from_numpy(ours_ND).double(), real=False)
        return float(metric.compute()[0])


def frechet_distance(ours_ND: np.ndarray, theirs_ND: np.ndarray) -> float:
    """FID: between Gaussians fitted to both sets. Far above 0 for small sets of one distribution."""
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=_as_is(ours_ND.shape[1]))
    metric.update(torch.from_numpy(theirs_ND).double(), real=True)
    metric.update(torch.from_numpy(ours_ND).double(), real=False)
    return float(metric.compute())


def _as_is(width: int) -> torch.nn.Module:
    """What torchmetrics calls a feature extractor, where the features are there already."""
    from torch import nn

    extractor = nn.Identity()
    extractor.num_features = width  # type: ignore[assignment]
    return extractor
