"""Backgrounds of the mini world: plain, patterned and drawn, each with the words that name it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from umm_bench.mini.world.colors import PALETTE, vector

PATTERNS = ("dots", "stripes", "checks")
PLAIN_COLORS = (
    "red",
    "orange",
    "yellow",
    "green",
    "teal",
    "blue",
    "light blue",
    "purple",
    "pink",
    "brown",
    "white",
    "gray",
    "black",
)


@dataclass(frozen=True)
class Background:
    """`kind` is plain, pattern or drawn; `name` is canonical ("blue", "green dots", "beach")."""

    kind: str
    name: str
    phrase: str


@functools.cache
def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    return axis[None, :].repeat(size, 0), axis[:, None].repeat(size, 1)


def _rgb(name: str) -> np.ndarray:
    return np.array(PALETTE[name], dtype=np.float32)


def _mix(a: np.ndarray, b: np.ndarray, t_HW: np.ndarray) -> np.ndarray:
    t = np.clip(t_HW, 0, 1)[..., None]
    return a * (1 - t) + b * t


def _plain(name: str, rng: np.random.Generator, size: int) -> np.ndarray:
    x, y = _grid(size)
    slope = rng.uniform(-14, 14, 2)
    return np.broadcast_to(_rgb(name), (size, size, 3)) + (slope[0] * (x - 0.5) + slope[1] * (y - 0.5))[..., None]


def _pattern(name: str, rng: np.random.Generator, size: int) -> np.ndarray:
    base, pattern = name.rsplit(" ", 1)
    x, y = _grid(size)
    ground = _rgb(base)
    # Light marks on a dark ground and the other way round, so that the ground's colour keeps its name.
    mark = ground * 0.55 if ground.mean() > 150 else ground * 0.45 + 140
    period = rng.uniform(0.16, 0.24)
    u, v = x + rng.uniform(0, period), y + rng.uniform(0, period)
    if pattern == "dots":
        on = np.hypot(u % period - period / 2, v % period - period / 2) < period * 0.27
    elif pattern == "stripes":
        on = (u if rng.random() < 0.5 else v) % period < period / 2
    else:
        on = ((u // period).astype(int) + (v // period).astype(int)) % 2 == 0
    return _mix(ground, mark, on.astype(np.float32))


Color = tuple[float, float, float]
Painter = Callable[[np.random.Generator, int], np.ndarray]


def _horizon(top: Color, middle: Color, ground: Color, level: float) -> Painter:
    def paint(rng: np.random.Generator, size: int) -> np.ndarray:
        x, y = _grid(size)
        line = level + rng.uniform(-0.06, 0.06) + 0.02 * np.sin(2 * np.pi * (x * rng.uniform(0.5, 2) + rng.random()))
        sky = _mix(vector(*top), vector(*middle), y / line)
        return np.where((y > line)[..., None], _mix(vector(*ground), vector(*ground) * 0.7, (y - line) * 1.6), sky)

    return paint


def _beach(rng: np.random.Generator, size: int) -> np.ndarray:
    x, y = _grid(size)
    sea, shore = 0.38 + rng.uniform(-0.05, 0.05), 0.6 + rng.uniform(-0.05, 0.05) + 0.02 * np.sin(12 * x)
    image = _mix(vector(120, 196, 245), vector(205, 236, 252), y / sea)
    image = np.where((y > sea)[..., None], vector(38, 140, 190), image)
    return np.where((y > shore)[..., None], vector(238, 214, 160), image)


def _night(rng: np.random.Generator, size: int) -> np.ndarray:
    _, y = _grid(size)
    image = _mix(vector(12, 14, 46), vector(40, 40, 96), y).copy()
    stars = rng.integers(0, size, (22, 2))
    image[stars[:, 0], stars[:, 1]] = (255, 250, 220)
    return image


def _bricks(rng: np.random.Generator, size: int) -> np.ndarray:
    x, y = _grid(size)
    row = ((y + rng.random()) / 0.11).astype(int)
    u, v = (x + rng.random() + 0.11 * (row % 2)) % 0.22, (y + 0.0) % 0.11
    joint = (u < 0.018) | (v < 0.018)
    return _mix(vector(172, 84, 64), vector(214, 200, 188), joint.astype(np.float32))


def _wood(rng: np.random.Generator, size: int) -> np.ndarray:
    x, y = _grid(size)
    grain = 0.5 + 0.5 * np.sin(40 * (y + 0.03 * np.sin(5 * x + rng.uniform(0, 6))))
    plank = ((y + rng.random()) % 0.25 < 0.02).astype(np.float32)
    return _mix(_mix(vector(176, 124, 76), vector(150, 100, 60), grain), vector(96, 62, 36), plank)


def _city(rng: np.random.Generator, size: int) -> np.ndarray:
    x, y = _grid(size)
    image = _mix(vector(176, 206, 232), vector(232, 226, 214), y).copy()
    heights = rng.uniform(0.25, 0.65, 7)
    tower = heights[np.minimum((x * 7).astype(int), 6)]
    image[y > tower] = (120, 126, 140)
    lit = (y > tower) & ((x * 7 % 1 * 3 % 1) > 0.55) & ((y * 12 % 1) > 0.5)
    image[lit] = (246, 222, 140)
    image[y > 0.86] = (84, 86, 92)
    return image


DRAWN: dict[str, tuple[Painter, tuple[str, ...]]] = {
    "beach": (_beach, ("on a beach", "at the beach", "on a sandy beach by the sea")),
    "meadow": (
        _horizon((130, 196, 246), (214, 238, 252), (104, 176, 76), 0.55),
        ("in a meadow", "on a green meadow", "in a grassy field"),
    ),
    "snow": (_horizon((170, 200, 226), (222, 234, 244), (244, 248, 252), 0.55), ("in the snow", "on a snowy field")),
    "desert": (_horizon((250, 206, 130), (252, 236, 190), (222, 164, 88), 0.6), ("in the desert", "in a sandy desert")),
    "sunset": (_horizon((92, 60, 130), (250, 140, 80), (52, 40, 66), 0.68), ("at sunset", "in front of a sunset")),
    "night sky": (_night, ("under a night sky", "in front of a starry sky", "at night under the stars")),
    "brick wall": (_bricks, ("in front of a brick wall", "against a red brick wall")),
    "wooden table": (_wood, ("on a wooden table", "on a wooden floor")),
    "city": (_city, ("in a city", "on a city street", "in front of tall buildings")),
}


def every_name() -> tuple[str, ...]:
    """All canonical background names, in a fixed order."""
    patterned = tuple(f"{color} {pattern}" for color in PLAIN_COLORS for pattern in PATTERNS)
    return PLAIN_COLORS + patterned + tuple(DRAWN)


def draw(name: str, rng: np.random.Generator, size: int) -> np.ndarray:
    """One rendering of a named background, float32 [size, size, 3] in 0..255. KeyError for an unknown name."""
    if name in DRAWN:
        image = DRAWN[name][0](rng, size)
    elif name in PALETTE:
        image = _plain(name, rng, size)
    else:
        image = _pattern(name, rng, size)
    return np.clip(image * rng.uniform(0.92, 1.06), 0, 255).astype(np.float32)


def choose(rng: np.random.Generator) -> Background:
    """A background and one of its wordings: half plain, a fifth patterned, the rest drawn."""
    roll = rng.random()
    if roll < 0.5:
        color = str(rng.choice(PLAIN_COLORS))
        words = rng.choice(
            [f"on a {color} background", f"in front of a plain {color} wall", f"against {color}"], p=[0.7, 0.15, 0.15]
        )
        return Background("plain", color, str(words))
    if roll < 0.7:
        color, pattern = str(rng.choice(PLAIN_COLORS)), str(rng.choice(PATTERNS))
        adjective = {"dots": "dotted", "stripes": "striped", "checks": "checkered"}[pattern]
        words = rng.choice([f"on a {color} background with {pattern}", f"on a {adjective} {color} background"])
        return Background("pattern", f"{color} {pattern}", str(words))
    name = str(rng.choice(list(DRAWN)))
    return Background("drawn", name, str(rng.choice(DRAWN[name][1])))
