"""Drawings of the concepts by further hands, from which only models that recognise learn.

They are the image encoder, the scoring CLIP and the detector. A concept has four to seven designs in the world, too few
to tell what is the concept and what its designers. These drawings, of emoji sets and icon sets, are in no scene that a
generator, a miner or a suite sees, so the world is the same without them. A designer whose drawing of a concept is held
out is held out of these too.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq

from umm_bench.mini.world import sprites
from umm_bench.mini.world.colors import PALETTE
from umm_bench.mini.world.sprites import Design

# Whose hand a set is, where the world has drawings by it; and which of the world's styles describes it.
DESIGNERS = {"noto-v1": "noto", "emojione-monotone": "emojione", "fluent-high-contrast": "fluent"}
STYLES = {"noto-v1": "noto", "streamline": "emojione"}
PLAIN = "fluent-flat"


@dataclass(frozen=True)
class Further:
    """A drawing as `scenes` pastes and describes it: `design` is none of the world's.

    `gain` is the colour of a monochrome one, which is stored white: `Placement.gain`, and its only dominant colour.
    """

    design: Design
    gain: tuple[float, float, float] | None = None


@functools.cache
def load() -> dict[str, tuple[Design, ...]]:
    """The drawings of each training concept that has any, without those by the designer that is held out of it.

    Monochrome ones have no colours.
    """
    world = sprites.load()
    drawings = defaultdict(list)
    for row in pq.read_table(sprites.ASSETS / "further.parquet").to_pylist():
        name, style = row["concept"], row["style"]
        absent = {sprites.designer(d.style) for d in world.members(name, "held_out")}
        if world.by_name[name].split == "train" and DESIGNERS.get(style) not in absent:
            world.add(row["id"], row["webp"])
            like = STYLES.get(style, PLAIN)
            drawings[name].append(Design(row["id"], name, like, row["id"], tuple(row["colors"]), "further"))
    return {name: tuple(of) for name, of in drawings.items()}


def draw(concept: str, rng: np.random.Generator) -> Further | None:
    """One of a concept's drawings, a monochrome one in some colour; None where there is no drawing."""
    of = load().get(concept)
    if of is None:
        return None
    design = of[int(rng.integers(len(of)))]
    if design.colors:
        return Further(design)
    color = str(rng.choice(list(PALETTE)))
    r, g, b = PALETTE[color]
    return Further(dataclasses.replace(design, colors=(color,)), (r / 255, g / 255, b / 255))
