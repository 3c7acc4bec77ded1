"""CLIP-I: how close is the image to the subject's references, to CLIP's eye?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from umm_bench.metrics.base import Score, ScoredSample
from umm_bench.metrics.embedding import clip_encoder
from umm_bench.metrics.fidelity import reference_cosines
from umm_bench.suites.base import Suite


@dataclass(frozen=True)
class ClipIConfig:
    """`model`: "mini", a folder or a hub id of a CLIPModel or a VisionTextDualEncoderModel."""

    model: str = "mini"


class ClipI:
    """Mean cosine to all references, by the CLIP of CLIP-T."""

    name = "clip_i"
    config_class = ClipIConfig

    def __init__(self, config: ClipIConfig, suite: Suite) -> None:
        self.encoder = clip_encoder(config.model)
        self.protocol = f"clip_i/1: mean cosine to all references, {self.encoder.label}"
        self.weights: Sequence[Path] = self.encoder.weights

    def score(self, batch: Sequence[ScoredSample]) -> list[Score]:
        return reference_cosines(self.encoder, self.name, self.protocol, batch)
