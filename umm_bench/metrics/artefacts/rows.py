"""What both measures share: a property of the image against the references, and how far their harm came through."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from umm_bench.images import open_image
from umm_bench.methods import Subject
from umm_bench.metrics.base import Score, ScoredSample

Measure = Callable[[Image.Image, tuple[int, int]], float]
"""A property of an RGB picture, on a logarithmic scale; the size is the generated image's."""

LEAST_HARM = 0.5
"""Of so many octaves: what methods were shown is nearer to the references where nothing can come through."""


def rows(
    name: str, protocol: str, measure: Measure, sample: ScoredSample, is_harm: Callable[[float], bool]
) -> list[Score]:
    """For each subject the image's property less its references' mean, and what share of the harm came through.

    `is_harm`: whether what methods were shown, less the references, is a harm of this kind.
    """
    image = open_image(sample.path)
    own = measure(image, image.size)
    found = []
    for place, subject in enumerate(sample.case.subjects):
        clean = _mean(measure, subject.references, image.size)
        evidence = {"image": round(own, 3), "references": round(clean, 3)}
        says = f"{own - clean:+.2f}: {own:.2f}, the references {clean:.2f}"
        found.append(Score(sample.key, name, protocol, own - clean, says, evidence, subject.id))
        if sample.shown:
            worse = _mean(measure, sample.shown[place], image.size)
            if is_harm(worse - clean):
                share = (own - clean) / (worse - clean)
                found.append(_transfer(sample, subject, name, protocol, share, {**evidence, "shown": round(worse, 3)}))
    return found


def _transfer(
    sample: ScoredSample, subject: Subject, name: str, protocol: str, share: float, evidence: dict[str, float]
) -> Score:
    says = f"{share:.2f} of the way from the references' {evidence['references']:.2f} to {evidence['shown']:.2f}"
    return Score(sample.key, f"{name}_transfer", protocol, share, says, evidence, subject.id)


def _mean(measure: Measure, pictures: Sequence[Path], size: tuple[int, int]) -> float:
    return float(np.mean([measure(open_image(picture), size) for picture in pictures]))
