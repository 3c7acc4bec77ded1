"""Copy-paste: is the image closer to the pictures that the method was given than to others of the same subject?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from umm_bench.methods import Subject
from umm_bench.metrics.base import Score, ScoredSample
from umm_bench.metrics.embedding import vision_encoder
from umm_bench.suites.base import Suite


@dataclass(frozen=True)
class CopyPasteConfig:
    """`model`: "mini", a folder or a hub id of an image encoder."""

    model: str = "mini"


class CopyPaste:
    """Mean cosine to the pictures that methods saw less that to those held out (MultiID-Bench, PDST).

    A method that draws the subject and not its photograph scores about 0, one that copies it as much as the held-out
    pictures differ from it. Needs pictures held out (`--references N`).
    """

    name = "copy_paste"
    like = "dino"
    config_class = CopyPasteConfig

    def __init__(self, config: CopyPasteConfig, suite: Suite) -> None:
        self.encoder = vision_encoder(config.model)
        self.protocol = f"copy_paste/1: mean cosine to given less to held-out pictures, {self.encoder.label}"
        self.weights: Sequence[Path] = self.encoder.weights

    def why_not(self, sample: ScoredSample) -> str | None:
        lacking = [subject.id for subject in sample.case.subjects if not subject.held_out]
        return (
            f"no picture of {', '.join(lacking)} is held out; --references N holds out the others" if lacking else None
        )

    def score(self, batch: Sequence[ScoredSample]) -> list[Score]:
        return [self._row(sample, subject) for sample in batch for subject in sample.case.subjects]

    def _row(self, sample: ScoredSample, subject: Subject) -> Score:
        (image,) = self.encoder.images([sample.path])
        given, held_out = (self.encoder.images(paths) @ image for paths in (subject.references, subject.held_out))
        value = float(np.mean(given) - np.mean(held_out))
        says = f"cosine {given.mean():.3f} to {len(given)} given, {held_out.mean():.3f} to {len(held_out)} held out"
        evidence = {"nearest_given": round(float(given.max()), 4), "nearest_held_out": round(float(held_out.max()), 4)}
        return Score(sample.key, self.name, self.protocol, value, says, evidence, subject.id)
