"""More pictures for a caption: what the composer could also have drawn, given a scene's words."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from umm_bench.mini.world import backgrounds, looks, scenes, sprites
from umm_bench.mini.world.looks import Look
from umm_bench.mini.world.sprites import Design


def _worded(phrase: str, concept: str, look: Look | None) -> list[tuple[Design, str | None, str, float]]:
    """What `describe` can have meant by a phrase: design, recolouring and size word ("" for none), and how likely."""
    sizes = ("", *(word for _, words in scenes.SIZE_WORDS for word in words))
    found: list[tuple[Design, str | None, str, float]] = []
    for design in sprites.load().members(concept, "train"):
        if look:
            if look.second and not sprites.load().has_second(design.id):
                continue
            for style, styled in [("", 0.45), *((word, 0.55 / 2) for word in scenes.STYLE_WORDS[design.style])]:
                for size in sizes:
                    if scenes.article(" ".join(filter(None, (size, style, look.describe(concept))))) == phrase:
                        found.append((design, None, size, styled))
            continue
        for recolor in (None, *scenes.RECOLORS):
            rarity = 0.07 / len(scenes.RECOLORS) if recolor else 0.93
            colors = [(recolor, 1.0)] if recolor else [("", 0.45), (" and ".join(design.colors), 0.55)]
            for style, styled in [("", 0.45), *((word, 0.55 / 2) for word in scenes.STYLE_WORDS[design.style])]:
                for color, colored in colors:
                    for size in sizes:
                        if scenes.article(" ".join(filter(None, (size, style, color, concept)))) == phrase:
                            found.append((design, recolor, size, rarity * styled * colored))
    return found


def _cumulative(meant: Sequence[tuple[Design, str | None, str, float]], pose: bool) -> np.ndarray:
    """Chances of what a phrase can mean, added up: even among the concept's designs, or mostly its usual one."""
    even = 1 / len(sprites.load().members(meant[0][0].concept, "train"))
    prior = [
        (1 - scenes.USUAL) * even + scenes.USUAL * (m[0] == scenes.usual(m[0].concept)) if pose else even for m in meant
    ]
    chances = np.cumsum([m[-1] * p for m, p in zip(meant, prior, strict=True)])
    return chances / chances[-1]


def _sized(scale: float, size: str, rng: np.random.Generator) -> bool:
    """Whether a sprite of this scale would have been given this size word, drawn with `describe`'s chances."""
    words = next(names for limit, names in scenes.SIZE_WORDS if scale <= limit)
    return size in words if size else not words or bool(rng.random() < 0.4)


def redraw(scene: scenes.Scene, key: int | str, number: int, posed: float = 0.0) -> np.ndarray:
    """More pictures for a scene's caption, uint8 [number, size, size, 3]: what the composer would draw given its words.

    Each has a design, size, place, turn, light, background drawing and, where the caption names none, relation of its
    own; the designs are training ones. `posed` is that of `compose`; every look is one that the caption says.
    """
    subjects = [o for o in scene.objects if o.design]
    worn = next((o.concept for o in scene.objects if not o.design), None)
    wanted = [Look.parse(o.look) if o.look else None for o in subjects]
    meant = [_worded(o.phrase, o.concept, look) for o, look in zip(subjects, wanted, strict=True)]
    chances = {pose: [_cumulative(of, pose) for of in meant] for pose in (False, True)}
    images = []
    for i in range(number):
        rng = scenes.rng_for("redraw", key, i)
        placed: list[tuple[str, scenes.Placement]] = []
        while len(placed) < len(subjects):
            placed = []
            pose = bool(rng.random() < posed)
            spots, relation = scenes.arrange(rng, len(subjects))
            if scene.relation not in (None, relation):
                continue
            for of, chance, spot, look in zip(meant, chances[pose], spots, wanted, strict=True):
                design, recolor, size, _ = of[min(int(np.searchsorted(chance, rng.random(), "right")), len(of) - 1)]
                at = scenes.random_placement(rng, *spot, jitter=0.03)
                if pose and (len(subjects) > 1 or at.scale > scenes.SIZE_WORDS[1][0]):
                    at = scenes.upright(at, spot, len(subjects))
                if not _sized(at.scale, size, rng) or (worn and not 0.45 < at.scale < 0.8):
                    break
                sprite = looks.looked(design.id, look) if look else design.id
                placed.append((sprite, dataclasses.replace(at, recolor=recolor)))
        canvas = backgrounds.draw(scene.background.name, rng, scene.image.shape[0])
        for design_id, at in placed:
            scenes.paste(canvas, design_id, at)
        if worn:
            drawing = sprites.load().members(worn, "train")
            scenes.paste(
                canvas, drawing[int(rng.integers(len(drawing)))].id, scenes.accessory_placement(worn, placed[0][1])
            )
        if scene.style:
            canvas = scenes.apply_style(canvas, scene.style)
        images.append(np.clip(canvas, 0, 255).astype(np.uint8))
    return np.stack(images)
