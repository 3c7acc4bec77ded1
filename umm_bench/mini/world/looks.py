"""Looks: what a picture tells of a subject and its name does not.

A look repaints a drawing. Its main region takes one colour, its second region another, and the main region may carry a
pattern in a third; outlines, eyes and small parts stay as they were drawn. So one drawing has thousands of looks, each
of which a caption can say ("a teal and white fox with yellow dots") or leave out. Some (concept, colour, pattern)
combinations are held out of all training, so that a look is new although each of its parts is known.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from umm_bench.mini.world.colors import LUMA, PALETTE, opponent, vector

COLORS = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "brown", "white", "black")
PATTERNS = ("stripes", "dots", "checks", "rings")
PARTS = ("main", "second", "pattern", "mark")
HELD_OUT_SHARE = 0.2  # of the (concept, main colour, pattern) combinations

SEPARATOR = "#"  # between a drawing's id and its look's
DARK = 34  # luma below which a pixel is outline or pupil, unless the drawing is mostly so
LEAST_SECOND = 120  # opaque pixels of 96 x 96: a smaller second region has no colour that is seen at 64 px
SECOND_SHARE = 0.12  # of the pixels, at least
MAIN, SECOND, FIXED = 0, 1, -1


@dataclass(frozen=True)
class Look:
    """Colours of the main and the second region, the main region's pattern and its colour; None: as drawn, no pattern.

    `id` names it within a drawing's id: "teal/white/dots/yellow".
    """

    main: str | None = None
    second: str | None = None
    pattern: str | None = None
    mark: str | None = None

    def __post_init__(self) -> None:
        if (self.pattern is None) != (self.mark is None):
            raise ValueError(f"a pattern has a colour, and a colour of marks a pattern: {self}")

    @property
    def id(self) -> str:
        return "/".join(part or "-" for part in (self.main, self.second, self.pattern, self.mark))

    @classmethod
    def parse(cls, text: str) -> Look:
        """The look of an `id`. ValueError for anything else."""
        parts = [None if part == "-" else part for part in text.split("/")]
        if (
            len(parts) != 4
            or not {parts[0], parts[1], parts[3]} <= {None, *COLORS}
            or parts[2] not in (None, *PATTERNS)
        ):
            raise ValueError(f"{text!r} is no look")
        return cls(*parts)

    def describe(self, noun: str) -> str:
        """ "teal and white fox with yellow dots", without an article."""
        colors = " and ".join(color for color in (self.main, self.second) if color)
        marks = f" with {self.mark} {self.pattern}" if self.pattern else ""
        return f"{colors} {noun}{marks}".strip()


def looked(design_id: str, look: Look) -> str:
    """The id by which `sprites.rgba` gives the drawing in this look."""
    return f"{design_id}{SEPARATOR}{look.id}"


def split_id(sprite_id: str) -> tuple[str, Look | None]:
    """A drawing's id and its look, None where it is as drawn."""
    design_id, _, look = sprite_id.partition(SEPARATOR)
    return design_id, Look.parse(look) if look else None


def regions(rgba: np.ndarray) -> np.ndarray:
    """Which pixels of a drawing (uint8 [H, W, 4]) are MAIN, SECOND or FIXED, int8 [H, W].

    Three groups of colours by k-means: the largest is the main region, with those that are but its shades; the next
    that is large enough is the second. What is dark (outlines, pupils), clear or small stays as it is.
    """
    pixels = rgba[..., :3].astype(np.float32)
    solid = rgba[..., 3] > 60
    bright = solid & (pixels @ LUMA > DARK)
    used = bright if bright.sum() > 0.45 * solid.sum() else solid
    found = np.full(rgba.shape[:2], FIXED, np.int8)
    values = opponent(pixels[used]) * vector(0.5, 1, 1)
    if len(values) < LEAST_SECOND:
        return found
    # Farthest first: the mean's farthest pixel, then the farthest from that, and so on.
    centres = [values[((values - values.mean(0)) ** 2).sum(1).argmax()]]
    for _ in range(2):
        centres.append(values[np.min([((values - c) ** 2).sum(1) for c in centres], 0).argmax()])
    for _ in range(12):
        group = np.stack([((values - c) ** 2).sum(1) for c in centres]).argmin(0)
        centres = [values[group == k].mean(0) if (group == k).any() else centres[k] for k in range(3)]
    sizes = np.bincount(group, minlength=3)
    order = np.argsort(-sizes, kind="stable")
    kinds, first = np.full(3, FIXED, np.int8), centres[order[0]]
    kinds[order[0]] = MAIN
    for k in order[1:]:
        apart = centres[k] - first
        if np.linalg.norm(apart[1:]) < 40 and abs(apart[0]) < 45:
            kinds[k] = MAIN
        elif SECOND not in kinds and sizes[k] > max(LEAST_SECOND, SECOND_SHARE * len(values)):
            kinds[k] = SECOND
    found[used] = kinds[group]
    return found


@functools.cache
def _axes(side: int) -> tuple[np.ndarray, np.ndarray]:
    axis = (np.arange(side, dtype=np.float32) + 0.5) / side
    return np.broadcast_to(axis[None, :], (side, side)), np.broadcast_to(axis[:, None], (side, side))


@functools.cache
def marks(pattern: str, side: int = 96) -> np.ndarray:
    """Where a pattern marks a square drawing, bool [side, side].

    Few and large: 64 px show nothing finer. And clearly less than half of it, or nothing but a mark's place would
    tell the main colour from the pattern's.
    """
    x, y = _axes(side)
    if pattern == "stripes":
        return (y * 3.2) % 1 < 0.38
    if pattern == "dots":
        row = np.floor(y * 3.5)
        return np.hypot((x * 3.5 + 0.5 * (row % 2)) % 1 - 0.5, (y * 3.5) % 1 - 0.5) < 0.34
    if pattern == "checks":  # a window's: crossing lines
        return ((x * 3.2 + 0.3) % 1 < 0.22) | ((y * 3.2 + 0.3) % 1 < 0.22)
    if pattern == "rings":
        return (np.hypot(x - 0.5, y - 0.5) * 4.6 + 0.1) % 1 < 0.38
    raise ValueError(f"no pattern {pattern!r}; there are {', '.join(PATTERNS)}")


def shading(rgba: np.ndarray, region: np.ndarray) -> np.ndarray:
    """How light each pixel of a drawing is beside its region's median, float32 [H, W]."""
    luma = rgba[..., :3].astype(np.float32) @ LUMA
    median = float(np.median(luma[region])) if region.any() else 1.0
    return np.clip(luma / max(median, 1.0), 0.45, 1.3)


def paint(rgba: np.ndarray, kinds: np.ndarray, look: Look) -> np.ndarray:
    """The drawing in a look, uint8 [H, W, 4]: each region in its colour, with the shading that it had."""
    out = rgba.copy()
    for kind, color in ((MAIN, look.main), (SECOND, look.second)):
        region = kinds == kind
        if not region.any():
            continue
        shade = shading(rgba, region)[..., None]
        if color:
            out[region, :3] = np.clip(vector(*PALETTE[color]) * shade, 0, 255)[region]
        if kind == MAIN and look.pattern and look.mark:
            on = region & marks(look.pattern, len(rgba))
            out[on, :3] = np.clip(vector(*PALETTE[look.mark]) * shade, 0, 255)[on]
    return out


def held_out(concept: str, look: Look) -> bool:
    """Whether no training of any model sees a concept in this main colour with this pattern (or without one)."""
    digest = hashlib.sha256(f"{concept}|{look.main}|{look.pattern}".encode()).digest()
    return look.main is not None and digest[0] < 256 * HELD_OUT_SHARE


def draw(rng: np.random.Generator, concept: str, has_second: bool, held: bool | None = None) -> Look:
    """A look for a drawing of a concept: a main colour, half the time a pattern, a second colour where it has room.

    `held` asks for one that is `held_out`, or for one that is not; None takes either. One in twelve of those that are
    not is a pattern on the drawing's own colours.
    """
    while True:
        if not held and rng.random() < 1 / 12:
            return Look(None, None, str(rng.choice(PATTERNS)), str(rng.choice(COLORS)))
        main = str(rng.choice(COLORS))
        second = str(rng.choice([c for c in COLORS if c != main])) if has_second else None
        pattern = str(rng.choice(PATTERNS)) if rng.random() < 0.5 else None
        mark = str(rng.choice([c for c in COLORS if c not in (main, second)])) if pattern else None
        look = Look(main, second, pattern, mark)
        if held is None or held_out(concept, look) == held:
            return look


def near_misses(look: Look, has_second: bool) -> Iterator[tuple[str, Look]]:
    """Every look that differs from this one in one part, with the part's name (of PARTS)."""
    others = {
        "main": [c for c in COLORS if c not in (look.main, look.second, look.mark)],
        "second": [c for c in COLORS if has_second and look.second and c not in (look.main, look.second, look.mark)],
        "mark": [c for c in COLORS if look.mark and c not in (look.main, look.second, look.mark)],
    }
    for part, color in [(part, color) for part, colors in others.items() for color in colors]:
        yield part, replace(look, **{part: color})
    if look.pattern:
        for pattern in (p for p in PATTERNS if p != look.pattern):
            yield "pattern", replace(look, pattern=pattern)
        yield "pattern", replace(look, pattern=None, mark=None)
    else:
        free = [c for c in COLORS if c not in (look.main, look.second)]
        for pattern, mark in product(PATTERNS, free[:: max(1, len(free) // 2)]):
            yield "pattern", replace(look, pattern=pattern, mark=mark)
