"""Single sprites with their texts: what the CLIPs learn concepts and looks from."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from umm_bench.mini.world import backgrounds, further, looks, scenes, sprites
from umm_bench.mini.world.colors import LUMA
from umm_bench.mini.world.looks import Look

if TYPE_CHECKING:
    from umm_bench.mini.recipes.clip import CLIPSizes

PART_VALUES = (("", *looks.COLORS), ("", *looks.COLORS), ("", *looks.PATTERNS), ("", *looks.COLORS))


@functools.cache
def training_names() -> list[str]:
    """The concepts that are not held out, by rank."""
    return [concept.name for concept in sprites.load().concepts if concept.split == "train"]


def varied(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A picture, float32 [S, S, 3], as another hand might have drawn it.

    Sheared and stretched, then perhaps only its edges, grey, coarse or negative, then perhaps with a hole.
    """
    size = image.shape[0]
    margin = size // 2
    wide = np.pad(np.clip(image, 0, 255).astype(np.uint8), ((margin, margin), (margin, margin), (0, 0)), "reflect")
    linear = np.diag(np.exp(rng.uniform(-0.3, 0.3, 2)))
    linear[0, 1], linear[1, 0] = rng.uniform(-0.25, 0.25, 2)
    centre = margin + size / 2
    shift = centre - linear @ np.array([size / 2, size / 2])
    affine = (*linear[0], shift[0], *linear[1], shift[1])
    drawn = Image.fromarray(wide).transform((size, size), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    image = np.asarray(drawn, dtype=np.float32)
    look = rng.random()
    if look < 0.15:
        edges = np.abs(np.gradient(image, axis=0)).sum(2) + np.abs(np.gradient(image, axis=1)).sum(2)
        edges = np.minimum(edges, 255)[..., None]
        image = np.repeat(edges if rng.random() < 0.5 else 255 - edges, 3, 2)
    elif look < 0.3:
        image = np.repeat(image @ LUMA[:, None], 3, 2)
    elif look < 0.4:
        image = np.round(image / 85) * 85
    elif look < 0.5:
        image = 255 - image
    if rng.random() < 0.4:
        height, width = rng.integers(size // 6, size // 2, 2)
        y, x = rng.integers(0, size - height), rng.integers(0, size - width)
        image = image.copy()
        image[y : y + height, x : x + width] = rng.uniform(0, 255, 3)
    return image.astype(np.float32)


@dataclass(frozen=True)
class Single:
    """One sprite alone: `text` is its name, or its look and its name."""

    image: np.ndarray
    name: str
    text: str
    look: Look | None = None
    near_misses: tuple[str, ...] = ()


def single(key: str, sizes: CLIPSizes) -> Single:
    """One training sprite, every concept as likely as another.

    `sizes.further` of them are by further hands, `recolor` have their channels mixed, `varied` are `varied`; of the
    others `looked` wear a look.
    """
    rng = scenes.rng_for("single", key)
    names = training_names()
    name = names[int(rng.integers(len(names)))]
    members = sprites.load().members(name, "train")
    drawing = members[int(rng.integers(len(members)))].id
    other = further.draw(name, rng) if rng.random() < sizes.further else None
    canvas = backgrounds.draw(backgrounds.choose(rng).name, rng, sizes.image_size)
    scale = float(rng.uniform(0.45, 0.95))
    x, y = 0.5 + rng.uniform(-0.5, 0.5, 2) * (1.05 - scale)
    at = scenes.random_placement(rng, float(x), float(y), scale)
    mixed, redrawn = rng.random() < sizes.recolor, rng.random() < sizes.varied
    look, text = None, scenes.article(name)
    near: tuple[str, ...] = ()
    if other:
        drawing, at = other.design.id, dataclasses.replace(at, gain=other.gain or at.gain)
    elif not (mixed or redrawn) and rng.random() < sizes.looked:
        second = sprites.load().has_second(drawing)
        look = looks.draw(rng, name, second, held=False)
        drawing, text = looks.looked(drawing, look), scenes.article(look.describe(name))
        near = near_words(name, look, second, rng, sizes.near)
    scenes.paste(canvas, drawing, at)
    if mixed:
        channels = canvas.reshape(-1, 3) @ rng.dirichlet((0.5, 0.5, 0.5), 3).astype(np.float32)
        canvas = channels.reshape(canvas.shape)
    if redrawn:
        canvas = varied(canvas, rng)
    return Single(np.clip(canvas, 0, 255).astype(np.uint8), name, text, look, near)


def near_words(name: str, look: Look, second: bool, rng: np.random.Generator, count: int) -> tuple[str, ...]:
    """So many of the near misses of a look, in words, none of them held out."""
    if not count:
        return ()
    misses = [
        scenes.article(miss.describe(name))
        for _, miss in looks.near_misses(look, second)
        if not looks.held_out(name, miss)
    ]
    return tuple(str(miss) for miss in rng.choice(misses, count, replace=False))


def part_labels(look: Look | None) -> list[int]:
    """A look's parts as rows of PART_VALUES; -100, which a cross-entropy leaves out, where there is no look."""
    if look is None:
        return [-100] * len(PART_VALUES)
    parts = (look.main, look.second, look.pattern, look.mark)
    return [values.index(part or "") for values, part in zip(PART_VALUES, parts, strict=True)]
