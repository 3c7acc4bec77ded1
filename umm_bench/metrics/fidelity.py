"""What CLIP-I and DINO share: cosines of a generated image to a subject's pictures, and of these to each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import ClassVar

import numpy as np

from umm_bench.methods import Subject
from umm_bench.metrics.base import Ceiling, Score, ScoredSample, all_pictures
from umm_bench.metrics.detection import Detector
from umm_bench.metrics.embedding import Encoder

CROPS = 3
"""Of one class in a generated image: the best of so many counts, as in XVerse's script."""


class ToReferences:
    """Mean cosine to all of a subject's pictures, one row for each subject of a sample.

    Of several subjects the whole image is compared with each, as most published scripts do.
    """

    name: ClassVar[str]

    def __init__(self, encoder: Encoder, protocol: str) -> None:
        self.encoder, self.protocol = encoder, protocol
        self.weights: Sequence[Path] = encoder.weights

    def pictures(self, subject: Subject) -> Sequence[Path]:
        """What it is compared with."""
        return all_pictures(subject)

    def score(self, batch: Sequence[ScoredSample]) -> list[Score]:
        return [self._row(sample, subject) for sample in batch for subject in sample.case.subjects]

    def ceiling(self, subject: Subject) -> Ceiling | None:
        """Real pictures against each other, each pair of different ones once."""
        return mean_of_pairs(self.encoder.images(all_pictures(subject)))

    def _row(self, sample: ScoredSample, subject: Subject) -> Score:
        pictures = self.pictures(subject)
        (image,) = self.encoder.images([sample.path])
        return cosine_row(self, sample, subject, pictures, self.encoder.images(pictures) @ image)


class ToInput(ToReferences):
    """Cosine to the one picture that a method of one input image is given: the first."""

    def pictures(self, subject: Subject) -> Sequence[Path]:
        return subject.references[:1]

    def ceiling(self, subject: Subject) -> Ceiling | None:
        """The other real pictures against the first."""
        first, *others = self.encoder.images(all_pictures(subject))
        return Ceiling(float(np.mean(others @ first)), len(others)) if others else None


class CropsToReferences(ToReferences):
    """Crops against crops: the subject's class is looked for, in its pictures and in the generated image.

    The best of the CROPS surest boxes counts. Where none is found the score is 0: a subject that is not there is the
    gravest failure, and is not given the whole image's score instead. A picture of the subject in which its class is
    not found is taken as a whole.
    """

    def __init__(self, encoder: Encoder, detector: Detector, protocol: str) -> None:
        super().__init__(encoder, protocol)
        self.detector = detector
        self.weights = [*encoder.weights, *detector.weights]

    def ceiling(self, subject: Subject) -> Ceiling | None:
        return mean_of_pairs(self._references(subject))

    def _references(self, subject: Subject) -> np.ndarray:
        return np.stack([self._crops(path, subject)[0] for path in all_pictures(subject)])

    def _crops(self, path: Path, subject: Subject, whole: bool = True) -> list[np.ndarray]:
        boxes = self.detector.edges(path, subject.class_noun)[:CROPS]
        found = [self.encoder.crop(path, box) for box in boxes]
        return found or ([self.encoder.images([path])[0]] if whole else [])

    def _row(self, sample: ScoredSample, subject: Subject) -> Score:
        crops = self._crops(sample.path, subject, whole=False)
        if not crops:
            says = f"no {subject.class_noun} is found: counts as 0"
            return Score(sample.key, self.name, self.protocol, 0.0, says, {"crops": 0}, subject.id)
        by_crop = np.stack(crops) @ self._references(subject).T
        best = int(by_crop.mean(axis=1).argmax())
        row = cosine_row(self, sample, subject, all_pictures(subject), by_crop[best])
        row.metadata.update(crops=len(crops), best=best)
        return row


def cosine_row(
    metric: ToReferences, sample: ScoredSample, subject: Subject, pictures: Sequence[Path], cosines: np.ndarray
) -> Score:
    """The mean, with each picture's cosine as evidence."""
    mean = float(cosines.mean())
    to = f"{len(cosines)} references ({cosines.min():.3f} to {cosines.max():.3f})"
    says = f"mean cosine {mean:.3f} to {to}" if len(cosines) > 1 else f"cosine {mean:.3f} to {pictures[0].name}"
    evidence = {path.name: round(float(cosine), 4) for path, cosine in zip(pictures, cosines, strict=True)}
    return Score(sample.key, metric.name, metric.protocol, mean, says, {"references": evidence}, subject.id)


def mean_of_pairs(
    features_ND: np.ndarray, compare: Callable[[np.ndarray, np.ndarray], float] = np.dot
) -> Ceiling | None:
    """Over all pairs of different members; None where there is but one."""
    values = [float(compare(one, other)) for one, other in combinations(features_ND, 2)]
    return Ceiling(float(np.mean(values)), len(values)) if values else None
