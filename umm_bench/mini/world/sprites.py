"""The sprites: concepts, their designs, how often each is seen in training, and which are held out.

A concept is a class ("fox"), a design is one drawing of it. Two renderings of the same drawing (Fluent's gradient
and 3D versions) share an `identity`: telling them apart at 64 px is not a question about the subject.
"""

from __future__ import annotations

import functools
import hashlib
import io
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from umm_bench.mini.world import looks

ASSETS = Path(__file__).parents[1] / "assets"

# The head of the frequency distribution: words that are frequent in web captions too. The rest follows by hash.
HEAD = (
    "dog", "cat", "automobile", "rose", "house", "bird", "red apple", "bicycle", "horse", "banana",
    "rocket", "guitar", "butterfly", "fish", "owl", "sunflower", "pizza", "airplane", "soccer ball", "teddy bear",
    "fox", "strawberry", "sailboat", "lion", "crown", "camera", "backpack", "cactus", "penguin", "mushroom",
    "t shirt", "candle", "elephant", "hamburger", "rabbit", "bus", "star", "umbrella", "frog", "turtle",
    "cupcake", "teapot", "alarm clock", "tiger", "lemon", "key", "bell", "hammer", "balloon", "dolphin",
    "panda", "pig", "cow", "duck", "castle", "top hat", "sunglasses", "trophy", "drum", "carrot",
)  # fmt: skip

# Zipf-Mandelbrot, (rank + OFFSET) ** -EXPONENT: the 30 first concepts make up about half of what is seen,
# the last is seen some 700 times less often than the first.
OFFSET, EXPONENT = 10.0, 1.5

# Accessories and the head must exist in training whatever the hash says.
_NEVER_HELD_OUT = frozenset(HEAD)
HELD_OUT_CONCEPT_SHARE = 0.06
HELD_OUT_DESIGN_SHARE = 0.5  # of the concepts with at least four identities


@dataclass(frozen=True)
class Design:
    """One drawing. `split` is "train" or "held_out"; `identity` is shared by renderings of one drawing."""

    id: str
    concept: str
    style: str
    identity: str
    colors: tuple[str, ...]
    split: str


@dataclass(frozen=True)
class Concept:
    """One class. `rank` is 0 for the most frequent; `weight` is its share of the training objects."""

    name: str
    group: str
    rank: int
    weight: float
    split: str
    designs: tuple[str, ...]


def _unit(*parts: str) -> float:
    """A number in [0, 1) that depends on `parts` only."""
    return int.from_bytes(hashlib.sha256("|".join(parts).encode()).digest()[:7]) / 2**56


def designer(style: str) -> str:
    """Whose drawings a style's are."""
    return "fluent" if style.startswith("fluent") else style


class Sprites:
    """All concepts and designs; `rgba` decodes a sprite once and keeps it (37 KB each)."""

    def __init__(self, path: Path) -> None:
        rows = pq.read_table(path).to_pylist()
        by_concept: dict[str, list[dict]] = defaultdict(list)
        for row in rows:
            by_concept[row["concept"]].append(row)
        head = [name for name in HEAD if name in by_concept]
        rest = sorted(set(by_concept) - set(head), key=lambda name: _unit("rank", name))
        ranked = head + rest
        held = {n for n in rest if n not in _NEVER_HELD_OUT and _unit("concept", n) < HELD_OUT_CONCEPT_SHARE}
        raw = {n: 0.0 if n in held else (rank + 1 + OFFSET) ** -EXPONENT for rank, n in enumerate(ranked)}
        total = sum(raw.values())
        self._webp = {row["id"]: row["webp"] for row in rows}
        self._rgba: dict[str, np.ndarray] = {}
        self._regions: dict[str, np.ndarray] = {}
        self._painted = functools.lru_cache(maxsize=4096)(self._paint)
        self.designs: dict[str, Design] = {}
        concepts = []
        for rank, name in enumerate(ranked):
            members = by_concept[name]
            designers = sorted({designer(row["style"]) for row in members})
            absent = None
            if len(designers) >= 4 and _unit("design", name) < HELD_OUT_DESIGN_SHARE:
                # A designer leaves with all renderings, or the held-out drawing would have been seen in another.
                absent = designers[int(_unit("designer", name) * len(designers))]
            for row in members:
                style = row["style"]
                gone = name in held or designer(style) == absent
                drawing = "fluent" if style == "fluent-3d" else style
                stem = row["id"].split("/")[0]
                self.designs[row["id"]] = Design(
                    id=row["id"],
                    concept=name,
                    style=style,
                    identity=f"{stem}/{drawing}",
                    colors=tuple(row["colors"]),
                    split="held_out" if gone else "train",
                )
            concepts.append(
                Concept(
                    name=name,
                    group=members[0]["group"],
                    rank=rank,
                    weight=raw[name] / total,
                    split="held_out" if name in held else "train",
                    designs=tuple(row["id"] for row in members),
                )
            )
        self.concepts: tuple[Concept, ...] = tuple(concepts)
        self.by_name: dict[str, Concept] = {concept.name: concept for concept in concepts}

    def rgba(self, design_id: str) -> np.ndarray:
        """The sprite, uint8 [96, 96, 4], its longer side filling the square; in a look where the id has one.

        KeyError for an unknown id.
        """
        if looks.SEPARATOR in design_id:
            return self._painted(design_id)
        if design_id not in self._rgba:
            image = Image.open(io.BytesIO(self._webp[design_id])).convert("RGBA")
            self._rgba[design_id] = np.asarray(image)
        return self._rgba[design_id]

    def _paint(self, sprite_id: str) -> np.ndarray:
        design_id, look = looks.split_id(sprite_id)
        return looks.paint(self.rgba(design_id), self.regions(design_id), look or looks.Look())

    def regions(self, design_id: str) -> np.ndarray:
        """`looks.regions` of a drawing, found once and kept."""
        if design_id not in self._regions:
            self._regions[design_id] = looks.regions(self.rgba(design_id))
        return self._regions[design_id]

    def has_second(self, design_id: str) -> bool:
        """Whether a look can give the drawing a second colour."""
        return bool((self.regions(design_id) == looks.SECOND).any())

    def add(self, drawing_id: str, webp: bytes) -> None:
        """Make one more drawing known to `rgba`; it is no design of the world. ValueError for an id that is taken."""
        if drawing_id in self._webp:
            raise ValueError(f"{drawing_id} is a design already")
        self._webp[drawing_id] = webp

    def members(self, concept: str, split: str | None = None) -> tuple[Design, ...]:
        """The designs of a concept, all or those of one split."""
        designs = (self.designs[i] for i in self.by_name[concept].designs)
        return tuple(d for d in designs if split is None or d.split == split)


@functools.cache
def load() -> Sprites:
    """The packed sprites; read once a process (a tenth of a second)."""
    return Sprites(ASSETS / "sprites.parquet")
