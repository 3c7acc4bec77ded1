"""What else a subject's picture and crop show: others of its kind, and boxes of other things.

The detector is asked again, for the bare nouns of the phrases that have a box ("fox" for "a red fox"), in prompts of
their own: a picture of a red and a white fox has two foxes, whichever the caption speaks of.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from PIL import Image

from curation.config import BuildConfig
from curation.errors import Rejected
from curation.grounding.base import Grounder
from curation.records import Box, Crowd, Phrase

# Of another's box, the share that has to be in the crop for it to be in there.
IN_CROP = 0.25
# A box that holds so much of the subject's is what it stands in or before ("a fox on a sofa"), nothing foreign.
HOLDS = 0.95
MAX_FOREIGN_SHARE = 0.25


def look_around(
    grounder: Grounder,
    images: Sequence[Image.Image],
    phrases: Sequence[Sequence[Phrase]],
    chosen: Sequence[list[Box | Rejected]],
    config: BuildConfig,
) -> list[list[Crowd | None]]:
    """For each phrase of each image that has a box, what is around it; None for the others.

    With ``config.alone`` the boxes of subjects that do not stand alone make way for the reason, in ``chosen``.
    """
    crowds = count_crowds(grounder, images, phrases, chosen, config)
    if config.alone:
        for own, row in zip(chosen, crowds, strict=True):
            for j, crowd in enumerate(row):
                if crowd is not None and (rejection := why_not_alone(crowd, config)):
                    own[j] = rejection
    return crowds


def count_crowds(
    grounder: Grounder,
    images: Sequence[Image.Image],
    phrases: Sequence[Sequence[Phrase]],
    chosen: Sequence[Sequence[Box | Rejected]],
    config: BuildConfig,
) -> list[list[Crowd | None]]:
    """For each phrase of each image that has a box, what is around it; None for the others."""
    nouns = [
        list(dict.fromkeys(p.noun.lower() for p, box in zip(row, own, strict=True) if isinstance(box, Box)))
        for row, own in zip(phrases, chosen, strict=True)
    ]
    asked = [i for i, row in enumerate(nouns) if row]
    found = dict(zip(asked, grounder.ground([images[i] for i in asked], [nouns[i] for i in asked]), strict=True))
    crowds: list[list[Crowd | None]] = []
    for i, (row, own) in enumerate(zip(phrases, chosen, strict=True)):
        of_noun = dict(zip(nouns[i], found.get(i, ()), strict=True))
        crowds.append(
            [
                crowd_of(j, row, own, of_noun[row[j].noun.lower()], config) if isinstance(own[j], Box) else None
                for j in range(len(row))
            ]
        )
    return crowds


def crowd_of(
    index: int, phrases: Sequence[Phrase], chosen: Sequence[Box | Rejected], of_noun: Sequence[Box], config: BuildConfig
) -> Crowd:
    """Of the phrase number ``index``, from the row's boxes and those of its bare noun."""
    subject = chosen[index]
    assert isinstance(subject, Box)  # the caller has looked
    rest = [(phrases[j], box) for j, box in enumerate(chosen) if j != index and isinstance(box, Box)]
    same_kind = [box for phrase, box in rest if phrase.concept == phrases[index].concept]
    sized = [box for box in of_noun if config.min_box_area <= box.area <= config.max_box_area]
    # What the caption's phrases found comes first: its boxes are those that other pairs have.
    others = suppress([subject, *same_kind, *sorted(sized, key=lambda box: -box.score)], config.nms_iou)[1:]
    foreign = [box for box in [*others, *(box for _, box in rest)] if overlap(subject, box) < HOLDS * subject.area]
    return Crowd(
        others_in_image=len(others),
        others_in_crop=sum(overlap(subject, box) >= IN_CROP * box.area for box in others),
        foreign_share=covered(subject, foreign),
    )


def why_not_alone(crowd: Crowd, config: BuildConfig) -> Rejected | None:
    """There is another of its kind in the picture, or too much else in the crop; None for one that stands alone."""
    most = MAX_FOREIGN_SHARE if config.max_foreign_share is None else config.max_foreign_share
    if crowd.others_in_image:
        return Rejected("phrase_not_alone", f"{crowd.others_in_image} more")
    return Rejected("phrase_crop_shared", f"{crowd.foreign_share:.2f}") if crowd.foreign_share > most else None


def suppress(ranked: Sequence[Box], iou: float) -> list[Box]:
    """The boxes that overlap none before them by more than ``iou``."""
    kept: list[Box] = []
    for box in ranked:
        if all(box.iou(other) <= iou for other in kept):
            kept.append(box)
    return kept


def overlap(box: Box, other: Box) -> float:
    width = min(box.x1, other.x1) - max(box.x0, other.x0)
    height = min(box.y1, other.y1) - max(box.y0, other.y0)
    return max(0.0, width) * max(0.0, height)


def covered(subject: Box, boxes: Sequence[Box]) -> float:
    """The share of a box that others cover together, however they overlap each other."""
    parts = [box for box in boxes if overlap(subject, box) > 0]
    if not parts or not subject.area:
        return 0.0
    xs = sorted({subject.x0, subject.x1, *(min(max(x, subject.x0), subject.x1) for b in parts for x in (b.x0, b.x1))})
    ys = sorted({subject.y0, subject.y1, *(min(max(y, subject.y0), subject.y1) for b in parts for y in (b.y0, b.y1))})
    area = sum(
        (right - left) * (bottom - top)
        for left, right in pairwise(xs)
        for top, bottom in pairwise(ys)
        if any(b.x0 <= left and right <= b.x1 and b.y0 <= top and bottom <= b.y1 for b in parts)
    )
    return min(1.0, area / subject.area)
