"""Where in a picture things of some classes are, each place once, with what the detector says of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from curation.grounding import Grounder
from curation.records import Box
from curation.vision.crops import pixel_edges

SAME = 0.5  # boxes with a larger intersection over union are one thing
INSIDE = 0.8  # of one noun, a box with more of it inside another is a part of that
BORDER = 2  # pixels around a box whose median paints it over


@dataclass(frozen=True)
class Place:
    """A box, xyxy in [0, 1] with its best score, and the score of each noun that was found there."""

    box: Box
    scores: Mapping[str, float]

    @property
    def noun(self) -> str:
        """What it is to the detector."""
        return max(self.scores, key=lambda noun: (self.scores[noun], noun))


def cleaned(noun: str) -> str:
    """A noun as classes are compared: "Teddy  bear" is a "teddy bear"."""
    return " ".join(noun.lower().split())


def find(
    grounder: Grounder, images: Sequence[Image.Image], nouns: Sequence[Sequence[str]], looks: int = 2
) -> list[list[Place]]:
    """The places of each picture's nouns, best first. A noun that is named twice is expected twice.

    Detectors give the second of two like things a low score. So where things are fewer than expected, those that were
    found are painted over with the colour around them, and the picture is looked at again, `looks` times in all.
    """
    places: list[list[Place]] = [[] for _ in images]
    rows = list(range(len(images)))
    for _ in range(looks):
        painted = [paint_over(images[row], [place.box for place in places[row]]) for row in rows]
        asked = [sorted(set(nouns[row])) for row in rows]
        for row, names, found in zip(rows, asked, grounder.ground(painted, asked), strict=True):
            places[row] = merge([*_boxes(places[row]), *_named(names, found)])
        rows = [row for row in rows if places[row] and _lacks(places[row], nouns[row])]
        if not rows:
            break
    return places


def _lacks(places: Sequence[Place], nouns: Sequence[str]) -> bool:
    found = Counter(place.noun for place in places)
    return any(found[noun] < number for noun, number in Counter(nouns).items())


def _named(nouns: Sequence[str], found: Sequence[Sequence[Box]]) -> list[tuple[str, Box]]:
    return [(noun, box) for noun, boxes in zip(nouns, found, strict=True) for box in boxes]


def _boxes(places: Sequence[Place]) -> list[tuple[str, Box]]:
    return [
        (noun, Box(place.box.x0, place.box.y0, place.box.x1, place.box.y1, score))
        for place in places
        for noun, score in place.scores.items()
    ]


def merge(found: Sequence[tuple[str, Box]]) -> list[Place]:
    """Boxes of nouns as places: the best box of each, every noun with its best score there."""
    ranked = sorted(found, key=lambda named: (-named[1].score, named[0], named[1].x0, named[1].y0))
    kept: list[tuple[Box, dict[str, float]]] = []
    for noun, box in ranked:
        there = next((place for place in kept if _is_there(box, noun, *place)), None)
        if there is None:
            kept.append((box, {noun: box.score}))
        else:
            there[1].setdefault(noun, box.score)
    return [Place(box, scores) for box, scores in kept]


def _is_there(box: Box, noun: str, other: Box, scores: Mapping[str, float]) -> bool:
    if box.iou(other) > SAME:
        return True
    width = min(box.x1, other.x1) - max(box.x0, other.x0)
    height = min(box.y1, other.y1) - max(box.y0, other.y0)
    least = min(box.area, other.area)
    return noun in scores and width > 0 and height > 0 and width * height >= INSIDE * least


def paint_over(image: Image.Image, boxes: Sequence[Box]) -> Image.Image:
    """An RGB picture with each box in the median colour of what is around it."""
    if not boxes:
        return image
    pixels = np.array(image)
    for box in boxes:
        left, top, right, bottom = pixel_edges(box, image.width, image.height)
        around = np.zeros(pixels.shape[:2], bool)
        around[max(top - BORDER, 0) : bottom + BORDER, max(left - BORDER, 0) : right + BORDER] = True
        around[top:bottom, left:right] = False
        seen = pixels[around] if around.any() else pixels.reshape(-1, 3)
        pixels[top:bottom, left:right] = np.median(seen, axis=0).astype(np.uint8)
    return Image.fromarray(pixels)
