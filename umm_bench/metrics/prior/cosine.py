"""Prior cosine: how close is the image to the one that plain SD draws of the same prompt and seed?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from umm_bench.metrics.base import Score, ScoredSample
from umm_bench.metrics.embedding import vision_encoder
from umm_bench.suites.base import Suite

NO_FLOOR = "plain SD's image of the same prompt and seed is not there"


@dataclass(frozen=True)
class PriorConfig:
    """`model`: "mini", a folder or a hub id of an image encoder."""

    model: str = "mini"


class PriorCosine:
    """1 is plain SD's very image. Needs the floor, which runs draw unless told not to."""

    name = "prior_cosine"
    like = "dino"
    config_class = PriorConfig

    def __init__(self, config: PriorConfig, suite: Suite) -> None:
        self.encoder = vision_encoder(config.model)
        self.protocol = f"prior_cosine/1: cosine to plain SD's image of the same prompt and seed, {self.encoder.label}"
        self.weights: Sequence[Path] = self.encoder.weights

    def why_not(self, sample: ScoredSample) -> str | None:
        return NO_FLOOR if sample.floor is None else None

    def score(self, batch: Sequence[ScoredSample]) -> list[Score]:
        return [self._row(sample) for sample in batch]

    def _row(self, sample: ScoredSample) -> Score:
        assert sample.floor is not None
        image, prior = self.encoder.images([sample.path, sample.floor])
        cosine = float(image @ prior)
        return Score(sample.key, self.name, self.protocol, cosine, f"cosine {cosine:.3f} to plain SD's image")
