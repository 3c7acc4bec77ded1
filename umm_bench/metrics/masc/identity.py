"""MaSC's identity: is each part of the subject found again somewhere in the image?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np

from umm_bench.methods import Subject
from umm_bench.metrics.base import Ceiling, Score, ScoredSample, all_pictures
from umm_bench.metrics.detection import detector
from umm_bench.metrics.masc.patches import HALF, PatchEncoder, foreground
from umm_bench.suites.base import Suite

STAGE = -3
"""Of a convolutional network: the third map from behind, as the last one of the mini encoder has but four cells, this
one 64."""


@dataclass(frozen=True)
class MascConfig:
    """`model`: "mini", a folder or a hub id of an image encoder with patches, as published
    google/siglip2-so400m-patch16-naflex. `detector`: the same of a GroundingDINO in transformers format.
    """

    model: str = "mini"
    detector: str = "mini"


class Masc:
    """For each patch of the subject in a reference, the largest cosine to any patch of the image; the mean of these,
    over all references.

    The subject's patches are those in the detector's surest box of the class noun, where the paper has masks. A
    reference in which the noun is not found counts as a whole.
    """

    name = "masc"
    config_class = MascConfig

    def __init__(self, config: MascConfig, suite: Suite) -> None:
        self.encoder, self.detector = PatchEncoder(config.model, "encoder", STAGE), detector(config.detector)
        self.protocol = (
            f"masc/1: mean over the subject's patches of the largest cosine to the image's, boxes for masks, "
            f"{self.encoder.label}, {self.detector.label}"
        )
        self.weights: Sequence[Path] = [*self.encoder.weights, *self.detector.weights]

    def score(self, batch: Sequence[ScoredSample]) -> list[Score]:
        return [self._row(sample, subject) for sample in batch for subject in sample.case.subjects]

    def ceiling(self, subject: Subject) -> Ceiling | None:
        """Each real picture's subject in each other one: both ways, as they differ."""
        pairs = list(permutations(all_pictures(subject), 2))
        values = [self._found_again(one, subject, other) for one, other in pairs]
        return Ceiling(float(np.mean(values)), len(pairs)) if pairs else None

    def _found_again(self, reference: Path, subject: Subject, image: Path) -> float:
        parts = self.encoder.patches(reference).unit
        share = foreground(self.encoder, self.detector, reference, [subject.class_noun])
        if share is not None:
            parts = parts[share >= min(HALF, share.max())]
        return float((parts @ self.encoder.patches(image).unit.T).max(axis=1).mean())

    def _row(self, sample: ScoredSample, subject: Subject) -> Score:
        pictures = all_pictures(subject)
        values = [self._found_again(picture, subject, sample.path) for picture in pictures]
        mean = float(np.mean(values))
        whole = [p.name for p in pictures if not self.detector.boxes(p, subject.class_noun)]
        evidence = {
            "references": {path.name: round(value, 4) for path, value in zip(pictures, values, strict=True)},
            "without_box": whole,
        }
        says = f"the subject's patches are found again with cosine {mean:.3f}, over {len(values)} references"
        return Score(sample.key, self.name, self.protocol, mean, says, evidence, subject.id)
