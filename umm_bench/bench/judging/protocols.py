"""The rules by which others score, on pictures that are there: what they compare, leave out and fall back on.

They are the published scripts' rules; models are the caller's, the same for all, so that what differs is the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from umm_bench.metrics.detection import Detector
from umm_bench.metrics.embedding import ClipEncoder, Encoder, VisionEncoder
from umm_bench.metrics.fidelity import CROPS

METRICS = ("dino", "clip_i", "clip_t")
PSR_THRESHOLD = 0.35
"""Of PSRBench's GroundingDINO. The mini detector has an operating point of its own."""


@dataclass(frozen=True)
class Picture:
    """What is scored: an image, the class noun and the pictures of each of its subjects, and the prompt in words."""

    path: Path
    nouns: tuple[str, ...]
    references: tuple[tuple[Path, ...], ...]
    text: str


@dataclass(frozen=True)
class Models:
    dino: VisionEncoder
    clip: ClipEncoder
    detector: Detector


Scorer = Callable[[Picture, Models], Mapping[str, float]]


@dataclass(frozen=True)
class Rule:
    """`score` gives a value for each metric that the script has, in its own unit. `single`: for one subject only.

    `drops` errors: a sample that cannot be scored is left out of its mean, and counted by nobody.
    """

    name: str
    says: str
    score: Scorer
    single: bool = False
    drops: bool = False


def _mean(encoder: Encoder, image: np.ndarray, paths: Sequence[Path]) -> float:
    return float(np.mean(encoder.images(paths) @ image))


def _clip_t(picture: Picture, models: Models) -> float:
    return float(models.clip.images([picture.path])[0] @ models.clip.texts([picture.text])[0])


def _whole(picture: Picture, models: Models, references: int | None) -> dict[str, float]:
    """Cosines of the whole image to the first so many pictures of each subject, averaged over the subjects."""
    scores = {}
    for name, encoder in (("dino", models.dino), ("clip_i", models.clip)):
        (image,) = encoder.images([picture.path])
        scores[name] = float(np.mean([_mean(encoder, image, paths[:references]) for paths in picture.references]))
    return scores


def bench(picture: Picture, models: Models) -> dict[str, float]:
    return {**_whole(picture, models, None), "clip_t": _clip_t(picture, models)}


def bench_crops(picture: Picture, models: Models) -> dict[str, float]:
    scores: dict[str, list[float]] = {"dino": [], "clip_i": []}
    for noun, paths in zip(picture.nouns, picture.references, strict=True):
        boxes = models.detector.edges(picture.path, noun)[:CROPS]
        for name, encoder in (("dino", models.dino), ("clip_i", models.clip)):
            real = np.stack([_crop(encoder, models.detector, path, noun) for path in paths])
            found = [float(np.mean(real @ encoder.crop(picture.path, box))) for box in boxes]
            scores[name].append(max(found, default=0.0))
    return {**{name: float(np.mean(of)) for name, of in scores.items()}, "clip_t": _clip_t(picture, models)}


def one_input(picture: Picture, models: Models) -> dict[str, float]:
    """Kosmos-G and DreamBench++: the one input picture; CLIP's cosines as percentages."""
    scores = _whole(picture, models, 1)
    return {"dino": scores["dino"], "clip_i": 100 * scores["clip_i"], "clip_t": 100 * _clip_t(picture, models)}


def uno(picture: Picture, models: Models) -> dict[str, float]:
    return {**_whole(picture, models, 1), "clip_t": _clip_t(picture, models)}


def psr(picture: Picture, models: Models) -> dict[str, float]:
    least = 0.0 if models.detector.name == "mini" else PSR_THRESHOLD
    scores = []
    for noun, paths in zip(picture.nouns, picture.references, strict=True):
        (reference,) = models.dino.images(paths[:1])
        scores.append(float(_crop(models.dino, models.detector, picture.path, noun, least) @ reference))
    return {"dino": float(np.mean(scores)), "clip_t": _clip_t(picture, models)}


def _crop(encoder: Encoder, detector: Detector, path: Path, noun: str, least: float = 0.0) -> np.ndarray:
    """Of the surest box; of the whole picture where there is none."""
    surest = [box.score for box in detector.boxes(path, noun)[:1]]
    edges = detector.edges(path, noun)[:1]
    return encoder.crop(path, edges[0]) if edges and surest[0] >= least else encoder.images([path])[0]


RULES = (
    Rule("bench", "all references, whole image", bench),
    Rule("bench_crop", "all references' crops, best of three crops, 0 where the subject is not found", bench_crops),
    Rule("kosmos_g", "the one input picture, CLIP x 100", one_input, single=True),
    Rule("dreambench_plus", "the one input picture, CLIP x 100, one image a prompt", one_input, single=True),
    Rule("uno", "the whole image once for each subject, averaged", uno),
    Rule("psr", "the surest box, the whole image where there is none; errors are left out", psr, drops=True),
)
"""The first is what the others are held against."""
