"""Diversity: how different are a method's images of one prompt, from seed to seed?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from umm_bench.metrics.base import Score, ScoredSample
from umm_bench.metrics.embedding import vision_encoder
from umm_bench.suites.base import Suite


@dataclass(frozen=True)
class DiversityConfig:
    """`model`: "mini", a folder or a hub id of an image encoder."""

    model: str = "mini"


class Diversity:
    """1 less the mean cosine to the method's earlier images of the same case and prompt: 0 where all are one image.

    It is a row of each image but the first, so that drawing more images changes no row that is there.
    """

    name = "diversity"
    like = "dino"
    config_class = DiversityConfig

    def __init__(self, config: DiversityConfig, suite: Suite) -> None:
        self.encoder = vision_encoder(config.model)
        self.protocol = f"diversity/1: 1 less the mean cosine to the images before it, {self.encoder.label}"
        self.weights: Sequence[Path] = self.encoder.weights

    def why_not(self, sample: ScoredSample) -> str | None:
        return None if sample.earlier else "the first image of its prompt; --images-per-prompt draws more"

    def score(self, batch: Sequence[ScoredSample]) -> list[Score]:
        return [self._row(sample) for sample in batch]

    def _row(self, sample: ScoredSample) -> Score:
        image, *earlier = self.encoder.images([sample.path, *sample.earlier])
        cosines = [float(other @ image) for other in earlier]
        mean = sum(cosines) / len(cosines)
        says = f"mean cosine {mean:.3f} to {len(cosines)} earlier images of the same prompt"
        return Score(sample.key, self.name, self.protocol, 1 - mean, says, {"nearest": round(max(cosines), 4)})
