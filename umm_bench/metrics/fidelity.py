"""What CLIP-I and DINO share: the mean cosine of a generated image to the subject's references."""

from collections.abc import Sequence

from umm_bench.metrics.base import Score, ScoredSample
from umm_bench.metrics.embedding import Encoder


def reference_cosines(encoder: Encoder, name: str, protocol: str, batch: Sequence[ScoredSample]) -> list[Score]:
    """One row a sample: the mean over all its subject's references, each reference's cosine as evidence."""
    images = encoder.images([sample.path for sample in batch])
    scores = []
    for sample, image in zip(batch, images, strict=True):
        cosines = encoder.images(sample.subject.references) @ image
        explanation = (
            f"mean cosine {cosines.mean():.3f} to {len(cosines)} references "
            f"({cosines.min():.3f} to {cosines.max():.3f})"
        )
        evidence = {
            reference.name: round(float(cosine), 4)
            for reference, cosine in zip(sample.subject.references, cosines, strict=True)
        }
        scores.append(Score(sample.key, name, protocol, float(cosines.mean()), explanation, {"references": evidence}))
    return scores
