"""The ground truth of a pair: two subjects in one picture, and what became of each of them.

A subject's label is the first of these that holds:

- missing: no drawing of its concept is at its place, nor a second one of the other's concept
- dominance: there is no drawing of its concept, but two of the other's
- right: its concept is there, in its own drawing and its own look
- swap: it has the other's whole look, and the other has its
- dominance: it has the other's whole look, and the other has kept that
- blending: a part of its look is wrong, and is the other's value of that part
- drift: its concept is there, in another drawing or look, but nothing of it is the other's

A look is the other's only where a part that the other's look has, and its own has otherwise, is seen. Two subjects of
one class are told apart by their drawings and looks; where the prompt says which is where ("left of"), the place tells
which is meant, so that two that have exchanged their places are a swap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from umm_bench.mini.checking import checker, matching, repainted, sightings
from umm_bench.mini.checking.matching import Picture
from umm_bench.mini.checking.sightings import Sighting
from umm_bench.mini.world import looks, sprites
from umm_bench.mini.world.looks import PARTS, Look
from umm_bench.mini.world.sprites import Design

LABELS = ("right", "missing", "drift", "swap", "dominance", "blending")
ONE_SIDED = ("left of", "right of", "above", "below")  # relations that are wrong when the two change places


@dataclass(frozen=True)
class _Subject:
    design: Design
    look: Look

    @classmethod
    def parse(cls, sprite_id: str) -> _Subject:
        design_id, look = looks.split_id(sprite_id)
        return cls(sprites.load().designs[design_id], look or Look())

    def fit(self, place: Sighting) -> tuple[int, float]:
        """How many of drawing and parts are this subject's at a place, and what its look explains there."""
        reading = place.reading(self.design)
        right = sum(repainted.has(reading, part, getattr(self.look, part)) for part in PARTS)
        return place.shows(self.design) + right, reading.of(self.look)

    def likeness(self, place: Sighting, other: _Subject) -> dict[str, Any]:
        """What is there of the subject, and what of the other's look."""
        reading = place.reading(self.design) if place.present else None
        parts = checker.compare(reading, self.look, {})
        for part, told in parts.items():
            strange = getattr(other.look, part)
            differs = strange is not None and strange != told["wanted"] and not told["right"]
            told["other"] = bool(differs and reading and repainted.has(reading, part, strange))
        look = all(told["right"] for told in parts.values())
        whole = reading is not None and all(repainted.has(reading, part, getattr(other.look, part)) for part in PARTS)
        return {
            "concept": place.present,
            "drawing": place.shows(self.design),
            "look": look,
            "identity": look and place.shows(self.design),
            "box": matching.box(place.best) if place.present else None,
            "parts": parts,
            "others_look": whole and any(told["other"] for told in parts.values()),
        }


def check_pair(image: Image.Image | np.ndarray, sprite_ids: Sequence[str], prompt: dict[str, Any]) -> dict[str, Any]:
    """Where are the two subjects of a prompt, and is each itself?

    Args:
        image: PIL image or uint8 [S, S, 3].
        sprite_ids: the two subjects' drawings, each with its look where it has one.
        prompt: an entry of the suite; its `relation` is that of the first subject to the second.

    Returns:
        subjects: for each, in their order, concept, drawing, look, identity: bool, as `checker.check`; box: what it
        covers, xyxy in [0, 1], None where its concept is missing; parts: by part of the look what is `wanted`,
        `found` and `right`, and whether it is the `other`'s; others_look: whether the whole look is the other's;
        label: of LABELS, as this module defines them;
        order: whether the two are where the relation says, None where the prompt names none;
        background: bool, or None where the prompt names none or its style repaints it; found_background.
    """
    one, two = map(_Subject.parse, sprite_ids)
    style, relation = prompt.get("style"), prompt.get("relation")
    pixels, picture = checker.picture_of(image, style)
    doubled = False
    if one.design.concept == two.design.concept:
        places, order = _places_in_class(picture, one, two, relation)
    else:
        places, doubled = _places_of_classes(picture, one.design.concept, two.design.concept)
        order = sightings.relates(*places, relation) if relation else None
    things = [place.best for place in places if place.present]
    told = [one.likeness(places[0], two), two.likeness(places[1], one)]
    labels = [_label(own, other, doubled) for own, other in (told, told[::-1])]
    found = checker.background_of(pixels, matching.covered(things))
    wanted = None if style in checker.REPAINTED else prompt.get("background")
    return {
        "subjects": [{**own, "label": label} for own, label in zip(told, labels, strict=True)],
        "order": order,
        "background": None if wanted is None else found == wanted,
        "found_background": found,
    }


def _places_of_classes(picture: Picture, one: str, two: str) -> tuple[tuple[Sighting, Sighting], bool]:
    """The places of two concepts, and whether only one of them is there, but twice."""
    concepts, places = (one, two), list(sightings.sight_both(picture, one, two))
    if all(place.present for place in places):
        # Neither was a rival of the other: where the other explains more, it is the other once more.
        for n in (0, 1):
            rest = picture.with_layer(places[1 - n].best)
            strange = sightings.ranked(rest, concepts[1 - n], inside=places[n].best)
            if strange and strange[0][0].explained > places[n].best.explained:
                places[n] = replace(places[n], rival=strange[0][0].explained)
                return (places[0], places[1]), True
    doubled = False
    if places[0].present != places[1].present:
        n = 0 if places[0].present else 1
        doubled = sightings.count(picture, concepts[n], places[n], concepts[1 - n]) > 1
    return (places[0], places[1]), doubled


def _label(own: dict[str, Any], other: dict[str, Any], doubled: bool) -> str:
    if not own["concept"]:
        return "dominance" if doubled else "missing"
    if own["identity"]:
        return "right"
    if own["others_look"] and other["others_look"]:
        return "swap"
    if own["others_look"] and other["look"]:
        return "dominance"
    return "blending" if any(told["other"] for told in own["parts"].values()) else "drift"


def _places_in_class(
    picture: Picture, one: _Subject, two: _Subject, relation: str | None
) -> tuple[tuple[Sighting, Sighting], bool | None]:
    """The places of two subjects of one concept, and whether they are as the relation says."""
    concept = one.design.concept
    first = sightings.sight(picture, concept)
    second = sightings.sight(picture.with_layer(first.best) if first.present else picture, concept)
    if not (first.present and second.present):
        there, gone = (first, second) if first.present else (second, first)
        places = (there, gone) if one.fit(there) >= two.fit(there) else (gone, there)
        return places, False if relation else None
    straight, crossed = _fits(one, two, (first, second)), _fits(one, two, (second, first))
    places = (first, second) if straight >= crossed else (second, first)
    if relation is None:
        return places, None
    if relation in ONE_SIDED and not sightings.relates(*places, relation):
        exchanged = places[1], places[0]
        as_asked = sightings.relates(*exchanged, relation)
        fits = _fits(one, two, exchanged)[0] >= _fits(one, two, places)[0]
        return (exchanged if as_asked else places), as_asked and fits
    return places, sightings.relates(*places, relation)


def _fits(one: _Subject, two: _Subject, places: tuple[Sighting, Sighting]) -> tuple[int, float]:
    """How well two subjects fit to two places, each to its own."""
    (right, explained), (right_too, explained_too) = one.fit(places[0]), two.fit(places[1])
    return right + right_too, explained + explained_too
