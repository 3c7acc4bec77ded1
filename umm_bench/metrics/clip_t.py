"""CLIP-T: does the image show what the prompt says?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from umm_bench.metrics.base import Score, ScoredSample
from umm_bench.metrics.embedding import clip_encoder
from umm_bench.suites.base import Suite


@dataclass(frozen=True)
class ClipTConfig:
    """`model`: "mini", a folder or a hub id of a CLIPModel or a VisionTextDualEncoderModel."""

    model: str = "mini"


class ClipT:
    """Cosine of the image and of the prompt with the class noun in each subject's place.

    A method's own words ("sks", a pseudo word) never reach the scoring model, which does not know them.
    """

    name: ClassVar[str] = "clip_t"
    version: ClassVar[str] = "1: cosine, prompt with class noun"
    config_class = ClipTConfig

    def __init__(self, config: ClipTConfig, suite: Suite) -> None:
        self.encoder = clip_encoder(config.model)
        self.protocol = f"{self.name}/{self.version}, {self.encoder.label}"
        self.weights: Sequence[Path] = self.encoder.weights

    def text(self, sample: ScoredSample) -> str:
        """What the image is compared with."""
        return sample.text

    def score(self, batch: Sequence[ScoredSample]) -> list[Score]:
        texts = [self.text(sample) for sample in batch]
        cosines = (self.encoder.images([s.path for s in batch]) * self.encoder.texts(texts)).sum(axis=1)
        return [
            Score(
                sample.key,
                self.name,
                self.protocol,
                float(cosine),
                f"cosine {cosine:.3f} with '{text}'",
                {"text": text, "truncated": self.encoder.is_truncated(text)},
            )
            for sample, text, cosine in zip(batch, texts, cosines, strict=True)
        ]


class ClipTOwn(ClipT):
    """The same with the method's own words left in, as scripts do that do not strip them.

    What it is below CLIP-T is what such scripts take from methods that write words of their own.
    """

    name = "clip_t_own"
    like = "clip_t"
    version = "1: cosine, prompt with the method's own words"

    def text(self, sample: ScoredSample) -> str:
        return sample.method_prompt or sample.text
