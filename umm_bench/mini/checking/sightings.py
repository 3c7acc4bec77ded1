"""Where drawings of a concept are in a picture, in whatever look, and whether they are that concept at all.

Analysis by synthesis (`matching`): the concept is there when one of its drawings explains what is seen at its place
better than drawings of other concepts do, and better than a blob: its own outline or an ellipse in any one colour, or
its own blur. All drawings may have any look (`repainted`).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from umm_bench.mini.checking import matching, matching_search, repainted
from umm_bench.mini.checking.matching import Match, Picture
from umm_bench.mini.checking.repainted import Reading
from umm_bench.mini.world import looks, sprites
from umm_bench.mini.world.sprites import Design

LEAST_SHARE = 0.3  # of what differs from the background at its place, that a drawing must explain
LEAST_EXPLAINED = 4.0  # and in all, in colours of [0, 1] summed over 64 x 64 pixels: a smooth wall has less to explain
LEAST_OF_ALL = 0.12  # and of all that differs: some of a pattern behind looks like many a thing, but only some of it
POSES = 2  # coarse ones of each drawing of a concept, plain and mirrored each: a disc's turn is seen late
KEPT = 8  # of these, over all its drawings, this many settle
RIVALS = 5  # and of the drawings of other concepts
MOST = 3  # drawings of one concept are counted up to here


def design_of(match: Match) -> Design:
    """The drawing of a match, whatever its look."""
    return sprites.load().designs[looks.split_id(match.design)[0]]


@dataclass(frozen=True)
class Sighting:
    """One place of a picture: the best match of drawings of a concept there with what looks explain, the best first.

    `rival` is what the best drawing of another concept explains, `blob` what the best blob does, `least` what a drawing
    must.
    """

    found: tuple[tuple[Match, Reading], ...]
    rival: float
    blob: float
    least: float

    @property
    def best(self) -> Match:
        return self.found[0][0]

    @property
    def lead(self) -> float:
        """How far the best drawing is ahead of all that is not the concept, as a share of what it explains."""
        # A drawing of one colour is its own outline: a tie is no proof against it.
        return 1 - max(self.rival, 0.97 * self.blob) / max(self.best.explained, 1e-3)

    @property
    def present(self) -> bool:
        return _explains(self.best, self.least) and self.lead > 0

    def shows(self, design: Design) -> bool:
        """Whether the concept is there, and no drawing of it explains more than this one, in whatever look."""
        return self.present and design_of(self.best).identity == design.identity

    def reading(self, design: Design) -> Reading:
        """What looks explain: of the drawing, where it is there and in which rendering; else of the best."""
        if self.shows(design):
            return next((r for m, r in self.found if design_of(m).id == design.id), self.found[0][1])
        return self.found[0][1]

    def lead_over_others(self, design: Design) -> float:
        """How much more a drawing explains than any other of the concept, as a share of what differs there."""
        own = [m.explained for m, _ in self.found if design_of(m).identity == design.identity]
        others = [m.explained for m, _ in self.found if design_of(m).identity != design.identity]
        return (max(own, default=0.0) - max(others, default=0.0)) / max(self.best.differs, 1.0)


def _explains(match: Match, least: float) -> bool:
    return match.share >= LEAST_SHARE and match.explained >= least


@functools.cache
def _distractors(number: int = 40) -> tuple[str, ...]:
    """One training drawing of each of the most frequent concepts."""
    world = sprites.load()
    seen = [c for c in world.concepts if c.split == "train"][:number]
    return tuple(world.members(c.name, "train")[0].id for c in seen)


def ranked(picture: Picture, concept: str, inside: Match | None = None) -> tuple[tuple[Match, Reading], ...]:
    """The most promising drawings of a concept at their best poses, in any look, the one that explains most first.

    `inside` is as in `matching_search.search`.
    """
    members = tuple(d.id for d in sprites.load().members(concept))
    settled: dict[str, tuple[Match, Reading]] = {}
    starts = matching_search.search(picture, members, inside=inside, each=POSES)
    for match, reading in repainted.settle(picture, starts, keep=KEPT):
        design_id = design_of(match).id
        if design_id not in settled or match.explained > settled[design_id][0].explained:
            settled[design_id] = match, reading
    return tuple(sorted(settled.values(), key=lambda pair: -pair[0].explained))


def sight(picture: Picture, concept: str, exempt: str | None = None) -> Sighting:
    """Where the drawings of a concept explain most. Drawings of `exempt`, which may be there too, are no rivals."""
    found = ranked(picture, concept)
    best, least = found[0][0], max(LEAST_EXPLAINED, LEAST_OF_ALL * picture.differs)
    if not _explains(best, least):
        return Sighting(found, best.explained, 0.0, least)
    others = matching_search.search(picture, _distractors(), (0.0,), inside=best)
    others = [m for m in others if design_of(m).concept not in (concept, exempt)]
    nearest = sorted(others, key=lambda m: -m.explained)[:RIVALS]
    rival = max((m.explained for m, _ in repainted.settle(picture, nearest)), default=-1.0)
    blobs = matching.settle(picture, [best] * 3, ["flat", "ellipse", "blurred"])
    return Sighting(found, rival, max(m.explained for m in blobs), least)


def sight_both(picture: Picture, concept: str, other: str) -> tuple[Sighting, Sighting]:
    """Two concepts in one picture, the clearer one taken for a part of what is behind the other.

    On its own, each would be laid over what belongs to the other.
    """
    subject, beside = sight(picture, concept, other), sight(picture, other, concept)
    if subject.present and beside.present and not _overlap(subject.best, beside.best):
        return subject, beside
    if subject.lead >= beside.lead:
        beside = sight(picture.with_layer(subject.best), other, concept)
        if not subject.present:
            subject = sight(picture.with_layer(beside.best), concept, other)
    else:
        subject = sight(picture.with_layer(beside.best), concept, other)
        if not beside.present:
            beside = sight(picture.with_layer(subject.best), other, concept)
    return subject, beside


def _overlap(one: Match, other: Match) -> bool:
    boxes = matching.box(one), matching.box(other)
    low, high = np.max([box[:2] for box in boxes], 0), np.min([box[2:] for box in boxes], 0)
    return bool((low < high).all())


def count(picture: Picture, concept: str, first: Sighting, exempt: str | None = None) -> int:
    """How many drawings of a concept are there, at most MOST, the first of which is sighted already."""
    found, sighting = 0, first
    while sighting.present:
        found += 1
        if found == MOST:
            break
        picture = picture.with_layer(sighting.best)
        if picture.differs < LEAST_EXPLAINED:
            break
        sighting = sight(picture, concept, exempt)
    return found


def relates(subject: Sighting, other: Sighting, relation: str) -> bool:
    """Whether both are there, and their places are as `relation` says, seen from the subject."""
    if not (subject.present and other.present):
        return False
    dx, dy, size = other.best.x - subject.best.x, other.best.y - subject.best.y, subject.best.scale
    if relation == "wearing":  # on the upper half, or just over it
        return abs(dx) < 0.4 * size and -0.8 * size < dy < 0.1 * size
    apart = {"left of": dx, "right of": -dx, "above": dy, "below": -dy, "next to": max(abs(dx), abs(dy))}
    return apart[relation] > 0.1
