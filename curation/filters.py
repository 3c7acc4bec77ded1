"""Cheap filters on what the corpus says about a row, and rules on the boxes that were found for it.

A filter raises `Rejected` with its reason, so the counters come for free.
"""

from __future__ import annotations

from collections.abc import Sequence

from curation.config import BuildConfig
from curation.errors import Rejected
from curation.records import Box, Sample
from curation.safety import judge


def check_scores(sample: Sample, config: BuildConfig) -> None:
    """LAION's published cut-offs, applied where the corpus has the column; a missing score passes."""
    if sample.nsfw is not None:
        judge(sample.nsfw, config.max_punsafe)
    if sample.punsafe is not None and not sample.punsafe <= config.max_punsafe:  # NaN is not safe
        raise Rejected("unsafe_score", f"{sample.punsafe:.2f}")
    if sample.pwatermark is not None and sample.pwatermark > config.max_pwatermark:
        raise Rejected("watermark_score", f"{sample.pwatermark:.2f}")
    if sample.similarity is not None and sample.similarity < config.min_similarity:
        raise Rejected("low_similarity", f"{sample.similarity:.2f}")
    if sample.aesthetic is not None and sample.aesthetic < config.min_aesthetic:
        raise Rejected("low_aesthetic", f"{sample.aesthetic:.2f}")


def check_box(box: Box, width: int, height: int, config: BuildConfig) -> None:
    """Area, crop and aspect rules for one box on an image of ``width`` x ``height`` pixels."""
    if box.area > config.max_box_area:
        raise Rejected("box_whole_image")
    if box.area < config.min_box_area:
        raise Rejected("box_too_small")
    sides = (box.x1 - box.x0) * width, (box.y1 - box.y0) * height
    if min(sides) < config.min_crop_side:
        raise Rejected("crop_too_small")
    if max(sides) > config.max_box_aspect * min(sides):
        raise Rejected("box_too_long")


def choose_boxes(
    candidates: Sequence[Sequence[Box]], width: int, height: int, config: BuildConfig
) -> list[Box | Rejected]:
    """One box a phrase, or why there is none.

    Area rules come first, so that a box of the whole scene cannot suppress the subject inside it. Suppression
    is class-agnostic: of two phrases on one object the better-scored keeps it.

    Args:
        candidates: for each phrase of one image, its boxes above the threshold, in any order.
    """
    outcome: list[Box | Rejected] = [Rejected("no_box") for _ in candidates]
    usable: list[tuple[Box, int]] = []
    for index, boxes in enumerate(candidates):
        for box in sorted(boxes, key=lambda b: b.score):
            try:
                check_box(box, width, height, config)
            except Rejected as rejection:
                outcome[index] = rejection  # the best box's reason stays, as it comes last
            else:
                usable.append((box, index))
    usable.sort(key=lambda item: (-item[0].score, item[1], item[0].x0, item[0].y0, item[0].x1, item[0].y1))

    kept: list[tuple[Box, int]] = []
    for box, index in usable:
        if all(box.iou(other) <= config.nms_iou for other, _ in kept):
            kept.append((box, index))
    for index in {index for _, index in usable}:
        own = [box for box, owner in kept if owner == index]
        if not own:
            outcome[index] = Rejected("box_of_other_phrase")
        elif len(own) > config.max_instances:
            outcome[index] = Rejected("phrase_ambiguous", f"{len(own)} boxes")
        else:
            outcome[index] = own[0]
    return outcome
