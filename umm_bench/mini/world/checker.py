"""The ground-truth checker: which drawing, which concept, which background, how many and where?

Analysis by synthesis (`matching`): the concept is there when one of its drawings explains what is seen at its place
better than drawings of other concepts do, and better than a blob: its own outline or an ellipse in any one colour, or
its own blur. The identity is right when, besides, the subject's own drawing explains more than any other of the
concept.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from umm_bench.mini.world import backgrounds, matching, matching_search, scenes, sprites
from umm_bench.mini.world.matching import Match, Picture

REPAINTED = ("black and white", "sepia", "neon")
LEAST_SHARE = 0.3  # of what differs from the background at its place, that a drawing must explain
LEAST_EXPLAINED = 4.0  # and in all, in colours of [0, 1] summed over 64 x 64 pixels: a smooth wall has less to explain
RIVALS = 5  # of the drawings of other concepts, this many settle their pose
MOST = 3  # drawings of one concept are counted up to here


@dataclass(frozen=True)
class Sighting:
    """One place of a picture: the best match of each drawing of a concept there, the best first.

    `rival` is what the best drawing of another concept explains, `blob` what the best blob does.
    """

    matches: tuple[Match, ...]
    rival: float
    blob: float

    @property
    def best(self) -> Match:
        return self.matches[0]

    @property
    def lead(self) -> float:
        """How far the best drawing is ahead of all that is not the concept, as a share of what it explains."""
        # A drawing of one colour is its own outline: a tie is no proof against it.
        return 1 - max(self.rival, 0.98 * self.blob) / max(self.best.explained, 1e-3)

    @property
    def present(self) -> bool:
        return _explains(self.best) and self.lead > 0


def _explains(match: Match) -> bool:
    return match.share >= LEAST_SHARE and match.explained >= LEAST_EXPLAINED


@functools.cache
def _distractors(number: int = 40) -> tuple[str, ...]:
    """One training drawing of each of the most frequent concepts."""
    world = sprites.load()
    seen = [c for c in world.concepts if c.split == "train"][:number]
    return tuple(world.members(c.name, "train")[0].id for c in seen)


def _settled(picture: Picture, concept: str) -> tuple[Match, ...]:
    """Each drawing of a concept at its best pose, the one that explains most first."""
    members = tuple(d.id for d in sprites.load().members(concept))
    settled: dict[str, Match] = {}
    for match in matching.settle(picture, matching_search.search(picture, members)):
        if match.design not in settled or match.explained > settled[match.design].explained:
            settled[match.design] = match
    return tuple(sorted(settled.values(), key=lambda m: -m.explained))


def nearest_design(image: np.ndarray, concept: str) -> str:
    """Which drawing of a concept explains most of a picture (uint8 [S, S, 3]), however little that is."""
    return _settled(Picture(image), concept)[0].design


def sight(picture: Picture, concept: str, exempt: str | None = None) -> Sighting:
    """Where the drawings of a concept explain most. Drawings of `exempt`, which may be there too, are no rivals."""
    ranked = _settled(picture, concept)
    if not _explains(ranked[0]):
        return Sighting(ranked, ranked[0].explained, 0.0)
    others = matching_search.search(picture, _distractors(), (0.0,), inside=ranked[0])
    others = [m for m in others if sprites.load().designs[m.design].concept not in (concept, exempt)]
    rivals = sorted(others, key=lambda m: -m.explained)[:RIVALS]
    kinds = ["drawing"] * len(rivals) + ["flat", "ellipse", "blurred"]
    against = [m.explained for m in matching.settle(picture, [*rivals, *[ranked[0]] * 3], kinds)]
    return Sighting(ranked, max(against[:-3], default=-1.0), max(against[-3:]))


def sight_both(picture: Picture, concept: str, other: str) -> tuple[Sighting, Sighting]:
    """Two concepts in one picture, the clearer one taken for a part of what is behind the other.

    On its own, each would be laid over what belongs to the other.
    """
    subject, beside = sight(picture, concept, other), sight(picture, other, concept)
    if subject.lead >= beside.lead:
        beside = sight(picture.with_layer(subject.best), other, concept)
        if not subject.present:
            subject = sight(picture.with_layer(beside.best), concept, other)
    else:
        subject = sight(picture.with_layer(beside.best), concept, other)
        if not beside.present:
            beside = sight(picture.with_layer(subject.best), other, concept)
    return subject, beside


def count(picture: Picture, concept: str, first: Sighting, exempt: str | None = None) -> int:
    """How many drawings of a concept are there, at most MOST, the first of which is sighted already."""
    found, sighting = 0, first
    while sighting.present:
        found += 1
        if found == MOST:
            break
        picture = picture.with_layer(sighting.best)
        sighting = sight(picture, concept, exempt)
    return found


def _relates(subject: Sighting, other: Sighting, relation: str) -> bool:
    """Whether both are there, and their places are as `relation` says, seen from the subject."""
    if not (subject.present and other.present):
        return False
    dx, dy, size = other.best.x - subject.best.x, other.best.y - subject.best.y, subject.best.scale
    if relation == "wearing":  # on the upper half, or just over it
        return abs(dx) < 0.4 * size and -0.8 * size < dy < 0.1 * size
    apart = {"left of": dx, "right of": -dx, "above": dy, "below": -dy, "next to": max(abs(dx), abs(dy))}
    return apart[relation] > 0.1


def _profile(image: np.ndarray, covered: np.ndarray | None = None) -> np.ma.MaskedArray:
    """What tells backgrounds apart, from the picture's border: colour by height, contrast along rows and columns.

    What lies under `covered` (bool [S, S]) does not count; a feature that lies there altogether is masked.
    """
    small = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BOX), dtype=np.float32) / 255
    hidden = np.zeros((32, 32), bool)
    if covered is not None:
        hidden = np.asarray(Image.fromarray(covered).convert("L").resize((32, 32), Image.Resampling.BOX)) > 0
    seen = np.ma.array(small, mask=np.repeat(hidden[..., None], 3, -1))
    sides = np.ma.concatenate([seen[:, :4], seen[:, -4:]], axis=1)
    ends = np.ma.concatenate([seen[:3], seen[-3:]], axis=0)
    heights = sides.reshape(8, 4, 8, 3).mean((1, 2))
    contrast = [2 * abs(a[1:] - a[:-1]).mean((0, 1)) for b in (sides, ends) for a in (b, b.swapaxes(0, 1))]
    return np.ma.concatenate([heights.ravel() * 0.6, ends[:3].mean((0, 1)), ends[-3:].mean((0, 1)), *contrast])


@functools.cache
def _background_profiles() -> tuple[tuple[str, ...], np.ndarray]:
    names = backgrounds.every_name()
    drawn = [
        _profile(backgrounds.draw(name, scenes.rng_for("profile", name, k), 64).astype(np.uint8)).filled()
        for name in names
        for k in range(6)
    ]
    return tuple(name for name in names for _ in range(6)), np.stack(drawn)


def background_of(image: np.ndarray, covered: np.ndarray | None = None) -> str:
    """The background name whose renderings are nearest to the picture's border, as far as that is not `covered`."""
    names, profiles = _background_profiles()
    distance = abs(profiles - _profile(image, covered)).sum(1)
    return names[int(distance.argmin())]


def check(image: Image.Image | np.ndarray, design_id: str, prompt: dict[str, Any]) -> dict[str, Any]:
    """Is the subject, its concept and the prompt's background in the picture, as often and where the prompt says?

    Args:
        image: PIL image or uint8 [S, S, 3].
        design_id: the subject's drawing.
        prompt: an entry of `suite.PROMPTS`.

    Returns:
        identity, concept: bool; background: bool, or None where the prompt names none or its style repaints it;
        count: whether the concept is there once, and the prompt's other thing too where it names one;
        relation: bool, None where the prompt names none; best_design: the drawing of the concept that explains most;
        score: the share it explains; margin: by how much of that the subject is ahead of the best other drawing.
    """
    pixels = np.asarray(image.convert("RGB")) if isinstance(image, Image.Image) else image
    designs = sprites.load().designs
    own, other, style = designs[design_id], prompt.get("other"), prompt.get("style")
    picture = Picture(pixels, gray=style in REPAINTED, pool=4 if style == "pixel art" else 2)
    wanted = None if style in REPAINTED else prompt.get("background")
    things = []
    relation, complete = None, True
    if other:
        subject, beside = sight_both(picture, own.concept, other)
        complete = beside.present
        if "relation" in prompt:
            relation = _relates(subject, beside, prompt["relation"])
        if beside.present:
            picture = picture.with_layer(beside.best)
            things.append(beside.best)
    else:
        subject = sight(picture, own.concept)
    if subject.present:
        things.append(subject.best)
    found = background_of(pixels, matching.covered(things))
    number = count(picture, own.concept, subject, other)
    same = max((m.explained for m in subject.matches if designs[m.design].identity == own.identity), default=0.0)
    rival = max((m.explained for m in subject.matches if designs[m.design].identity != own.identity), default=0.0)
    return {
        # One drawing of the concept always explains most, also of a blank picture: it must be that concept first.
        "identity": subject.present and designs[subject.best.design].identity == own.identity,
        "concept": subject.present,
        "background": None if wanted is None else found == wanted,
        "count": number == 1 and complete,
        "relation": relation,
        "found": number,
        "best_design": subject.best.design,
        "score": subject.best.share,
        "margin": (same - rival) / max(subject.best.differs, 1.0),
        "found_background": found,
    }
