"""DINO: how close is the image to the subject's references, to a self-supervised encoder's eye?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from umm_bench.metrics.base import Score, ScoredSample
from umm_bench.metrics.embedding import vision_encoder
from umm_bench.metrics.fidelity import reference_cosines
from umm_bench.suites.base import Suite


@dataclass(frozen=True)
class DinoConfig:
    """`model`: "mini", a folder or a hub id of an image encoder, e.g. facebook/dino-vits16.

    Images are prepared as the model's own `preprocessor_config.json` says.
    """

    model: str = "mini"


class Dino:
    """Mean cosine to all references, of CLS tokens or a convolutional network's pooled maps.

    Unlike CLIP, the encoder was not taught that all dogs are alike.
    """

    name = "dino"
    config_class = DinoConfig

    def __init__(self, config: DinoConfig, suite: Suite) -> None:
        self.encoder = vision_encoder(config.model)
        self.protocol = f"dino/1: mean cosine of CLS tokens or pooled maps to all references, {self.encoder.label}"
        self.weights: Sequence[Path] = self.encoder.weights

    def score(self, batch: Sequence[ScoredSample]) -> list[Score]:
        return reference_cosines(self.encoder, self.name, self.protocol, batch)
