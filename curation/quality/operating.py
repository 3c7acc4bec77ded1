"""A detector's operating point: the threshold at which absent things get a box as rarely as asked, and its recall.

Detectors score on scales of their own. At an equal rate of boxes for absent phrases they can be compared, by how many
of the phrases whose thing is there get their best box on it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from curation.errors import UserError
from curation.grounding import Grounder
from curation.quality.labels import Labelled, readable
from curation.quality.truth import MIN_IOU

RESAMPLES = 1000
CONFIDENCE = 0.95
# Thresholds are written with so many decimals.
DECIMALS = 4
CHUNK = 64


@dataclass(frozen=True)
class Answers:
    """What a detector said, of P pictures: the best box's score of each phrase, 0 without any.

    Args:
        absent_N: scores of phrases whose thing is not there, with the number of their picture in ``absent_of_N``.
        present_M: scores of phrases whose thing is there; ``right_M`` says whether the box is on it.
    """

    pictures: int
    absent_N: np.ndarray
    absent_of_N: np.ndarray
    present_M: np.ndarray
    present_of_M: np.ndarray
    right_M: np.ndarray


@dataclass(frozen=True)
class Point:
    """At ``threshold`` a share ``accepted`` of the absent phrases has a box, ``asked`` at most; ``recall`` of the
    present ones has its best box on the thing. Intervals (low, high) are by resampling pictures."""

    asked: float
    threshold: float
    threshold_interval: tuple[float, float]
    accepted: float
    recall: float
    recall_interval: tuple[float, float]
    recalls_R: np.ndarray  # of each resample, for comparing detectors on the same ones


def ask(grounder: Grounder, labelled: Sequence[Labelled]) -> Answers:
    """Asks for present and absent things together, as captions do, in an order that does not tell which is which.

    Args:
        grounder: with a threshold that keeps everything.
    """
    absent, present = [], []
    count = 0
    pictures = readable(labelled)
    while chunk := list(islice(pictures, CHUNK)):
        phrases = [shuffled(picture) for picture, _ in chunk]
        found = grounder.ground([image for _, image in chunk], phrases)
        for (picture, _), names, row in zip(chunk, phrases, found, strict=True):
            for name, boxes in zip(names, row, strict=True):
                best = max(boxes, key=lambda box: box.score, default=None)
                score = 0.0 if best is None else best.score
                if name in picture.present:
                    right = best is not None and any(best.iou(box) >= MIN_IOU for box in picture.present[name])
                    present.append((score, count, right))
                else:
                    absent.append((score, count))
            count += 1
    if not absent or not present:
        raise UserError("the labels give nothing to tune on; it takes readable pictures with and without a category")
    absent_N, absent_of_N = map(np.array, zip(*absent, strict=True))
    present_M, present_of_M, right_M = map(np.array, zip(*present, strict=True))
    return Answers(count, absent_N, absent_of_N, present_M, present_of_M, right_M)


def shuffled(picture: Labelled) -> list[str]:
    names = [*picture.present, *picture.absent]
    random.Random(f"order {picture.key}").shuffle(names)
    return names


def operating_point(answers: Answers, rate: float) -> Point:
    """The least threshold at which no more than ``rate`` of the absent phrases has a box."""
    weights_RP = np.random.default_rng(0).multinomial(
        answers.pictures, np.full(answers.pictures, 1 / answers.pictures), size=RESAMPLES
    )
    threshold = threshold_at(answers, np.ones(answers.pictures), rate)
    thresholds_R = np.array([threshold_at(answers, weights_P, rate) for weights_P in weights_RP])
    recalls_R = np.array([recall_at(answers, w_P, at) for w_P, at in zip(weights_RP, thresholds_R, strict=True)])
    return Point(
        asked=rate,
        threshold=threshold,
        threshold_interval=interval(thresholds_R),
        accepted=float(np.mean(answers.absent_N >= threshold)),
        recall=recall_at(answers, np.ones(answers.pictures), threshold),
        recall_interval=interval(recalls_R),
        recalls_R=recalls_R,
    )


def threshold_at(answers: Answers, weights_P: np.ndarray, rate: float) -> float:
    """Just above the greatest score that is one too many."""
    order = np.argsort(-answers.absent_N, kind="stable")
    weights_N = np.cumsum(weights_P[answers.absent_of_N[order]])
    over = np.flatnonzero(weights_N > rate * weights_N[-1] + 1e-9)
    if not len(over):
        return 0.0
    step = 10**DECIMALS
    return min(1.0, (math.floor(answers.absent_N[order][over[0]] * step) + 1) / step)


def recall_at(answers: Answers, weights_P: np.ndarray, threshold: float) -> float:
    weights_M = weights_P[answers.present_of_M]
    found_M = answers.right_M & (answers.present_M >= threshold)
    return float((weights_M * found_M).sum() / weights_M.sum()) if weights_M.sum() else 0.0


def interval(values_R: np.ndarray) -> tuple[float, float]:
    edge = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values_R, [edge, 1 - edge])
    return float(low), float(high)
