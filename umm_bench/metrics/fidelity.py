"""What CLIP-I and DINO share: the mean cosine of a generated image to a subject's references."""

from collections.abc import Sequence

import numpy as np

from umm_bench.methods import Subject
from umm_bench.metrics.base import Score, ScoredSample
from umm_bench.metrics.embedding import Encoder


def reference_cosines(encoder: Encoder, name: str, protocol: str, batch: Sequence[ScoredSample]) -> list[Score]:
    """One row for each subject of each sample: the mean over all its pictures, each picture's cosine as evidence.

    Of several subjects the whole image is compared with each, as most published scripts do.
    """
    images = encoder.images([sample.path for sample in batch])
    return [
        _row(encoder, name, protocol, sample.key, subject, image)
        for sample, image in zip(batch, images, strict=True)
        for subject in sample.case.subjects
    ]


def _row(encoder: Encoder, name: str, protocol: str, key: str, subject: Subject, image: np.ndarray) -> Score:
    pictures = [*subject.references, *subject.held_out]
    cosines = encoder.images(pictures) @ image
    explanation = (
        f"mean cosine {cosines.mean():.3f} to {len(cosines)} references ({cosines.min():.3f} to {cosines.max():.3f})"
    )
    evidence = {path.name: round(float(cosine), 4) for path, cosine in zip(pictures, cosines, strict=True)}
    return Score(key, name, protocol, float(cosines.mean()), explanation, {"references": evidence}, subject.id)
