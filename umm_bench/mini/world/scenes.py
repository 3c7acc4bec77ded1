"""The composer: a key becomes a scene, its caption and its truth. Same key, same scene, on every machine."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from umm_bench.mini.world import backgrounds, further, looks, sprites
from umm_bench.mini.world.backgrounds import Background
from umm_bench.mini.world.colors import LUMA, PALETTE, vector
from umm_bench.mini.world.looks import Look
from umm_bench.mini.world.sprites import Design

STYLE_WORDS = {
    "noto": ("cartoon", "shaded"),
    "twemoji": ("flat", "flat vector"),
    "fluent-flat": ("minimal", "simple"),
    "fluent": ("glossy", "gradient"),
    "fluent-3d": ("3d", "3d rendered"),
    "fx": ("retro", "old fashioned"),
    "emojione": ("detailed", "clip art"),
}
SIZE_WORDS = ((0.36, ("tiny", "little")), (0.5, ("small",)), (0.78, ()), (9.0, ("big", "large")))
FILTERS = {
    "pixel art": ("pixel art of {}", "{}, pixel art"),
    "black and white": ("a black and white photo of {}", "{}, black and white"),
    "sepia": ("an old sepia photo of {}", "{}, sepia"),
    "neon": ("a dark neon picture of {}", "{}, neon"),
}
ACCESSORIES = ("crown", "top hat", "sunglasses", "umbrella", "balloon")
RECOLORS = ("red", "yellow", "green", "blue", "purple", "pink")
USUAL = 0.8  # share of the posed sprites that are drawn as their concept usually is
OPENINGS = ("{}", "{}", "{}", "a picture of {}", "a photo of {}", "an image of {}", "there is {}")


@dataclass(frozen=True)
class SceneObject:
    """A sprite in a scene; `phrase` are the caption's words for it, `box` is xyxy in [0, 1], what is visible of it.

    `look` is its `Look.id`, whether or not the phrase says it; None where it is as drawn.
    """

    design: str
    concept: str
    phrase: str
    box: tuple[float, float, float, float]
    look: str | None = None


@dataclass(frozen=True)
class Scene:
    """`image` is uint8 [size, size, 3]; `relation` and `style` are None when the caption names none."""

    image: np.ndarray
    caption: str
    objects: tuple[SceneObject, ...]
    background: Background
    relation: str | None = None
    style: str | None = None


@dataclass(frozen=True)
class Placement:
    """How a sprite is put into a scene: centre in [0, 1], long side as a share of the frame, degrees, mirror."""

    x: float
    y: float
    scale: float
    angle: float = 0.0
    mirror: bool = False
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    recolor: str | None = None


def rng_for(*key: object) -> np.random.Generator:
    """A generator that depends on the key only."""
    digest = hashlib.sha256("|".join(map(str, key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8]))


@functools.cache
def _training_table(split: str) -> tuple[tuple[Design, ...], np.ndarray]:
    """Designs of a split with their probabilities: Zipf over concepts, even within one."""
    world = sprites.load()
    pool = [d for d in world.designs.values() if split == "all" or d.split == split.removesuffix("_even")]
    sharing: dict[str, int] = {}
    for design in pool:
        sharing[design.concept] = sharing.get(design.concept, 0) + 1
    # Held-out concepts have weight 0 in training; outside it every concept is equally likely.
    weights = [(world.by_name[d.concept].weight if split == "train" else 1.0) / sharing[d.concept] for d in pool]
    p = np.cumsum(weights)
    return tuple(pool), p / p[-1]


def draw_design(rng: np.random.Generator, split: str = "train") -> Design:
    """A design by its frequency in `split` ("train", "train_even", "held_out" or "all")."""
    pool, cumulative = _training_table(split)
    return pool[min(int(np.searchsorted(cumulative, rng.random(), side="right")), len(pool) - 1)]


def _tint(rgb: np.ndarray, color: str) -> np.ndarray:
    """The sprite's shading in another colour: luma kept, hue replaced."""
    luma = rgb @ LUMA
    target = vector(*PALETTE[color])
    return np.clip(luma[..., None] / max(60.0, float(target @ LUMA)) * target, 0, 255)


def paste(canvas: np.ndarray, design_id: str, at: Placement) -> tuple[float, float, float, float] | None:
    """Draw a sprite on `canvas` (float32 [S, S, 3], changed in place); its visible box, None when outside."""
    size = canvas.shape[0]
    sprite = Image.fromarray(sprites.load().rgba(design_id))
    if at.mirror:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    side = max(4, round(at.scale * size))
    # Premultiplied alpha ("RGBa"), or the transparent pixels' colour bleeds into the outline.
    method = Image.Resampling.BOX if side < 48 else Image.Resampling.BILINEAR
    sprite = sprite.convert("RGBa").resize((side, side), method)
    if abs(at.angle) > 0.5:
        sprite = sprite.rotate(at.angle, Image.Resampling.BILINEAR, expand=True)
    pixels = np.asarray(sprite, dtype=np.float32)
    h, w = pixels.shape[:2]
    x0, y0 = round(at.x * size - w / 2), round(at.y * size - h / 2)
    cx0, cy0, cx1, cy1 = max(x0, 0), max(y0, 0), min(x0 + w, size), min(y0 + h, size)
    if cx0 >= cx1 or cy0 >= cy1:
        return None
    part = pixels[cy0 - y0 : cy1 - y0, cx0 - x0 : cx1 - x0]
    rgb, alpha = part[..., :3], part[..., 3:] / 255
    if at.recolor:
        rgb = (_tint(rgb / np.maximum(alpha, 1 / 255), at.recolor) * alpha).astype(np.float32)
    canvas[cy0:cy1, cx0:cx1] = canvas[cy0:cy1, cx0:cx1] * (1 - alpha) + rgb * vector(*at.gain)
    solid = alpha[..., 0] > 0.3
    rows, cols = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    if not len(rows):
        return None
    box = (cx0 + cols[0], cy0 + rows[0], cx0 + cols[-1] + 1, cy0 + rows[-1] + 1)
    return tuple(float(v) / size for v in box)  # type: ignore[return-value]


def article(words: str) -> str:
    """ "an owl", "a fox"; plurals by their last letter keep "a" away only in words that need it: "sunglasses"."""
    if words.endswith(("glasses", "cherries", "grapes", "jeans", "socks", "gloves", "scissors", "skis")):
        return words
    return ("an " if words[0] in "aeiou" else "a ") + words


def describe(
    design: Design, scale: float, rng: np.random.Generator, recolor: str | None = None, look: Look | None = None
) -> str:
    """A noun phrase for a design: its concept, mostly with some of size, style and colours; all of a look."""
    words: list[str] = []
    sizes = next(names for limit, names in SIZE_WORDS if scale <= limit)
    if sizes and rng.random() < 0.6:
        words.append(str(rng.choice(sizes)))
    if rng.random() < 0.55:
        words.append(str(rng.choice(STYLE_WORDS[design.style])))
    if look:
        return article(" ".join([*words, look.describe(design.concept)]))
    if recolor:
        words.append(recolor)
    elif rng.random() < 0.55:
        words.append(" and ".join(design.colors))
    return article(" ".join([*words, design.concept]))


def apply_style(image: np.ndarray, style: str) -> np.ndarray:
    """A whole-picture style on float32 [S, S, 3]."""
    luma = image @ LUMA
    if style == "pixel art":
        size = image.shape[0]
        small = Image.fromarray(image.astype(np.uint8)).resize((size // 4, size // 4), Image.Resampling.BOX)
        return np.asarray(small.resize((size, size), Image.Resampling.NEAREST), dtype=np.float32)
    if style == "black and white":
        return np.repeat(luma[..., None], 3, 2)
    if style == "sepia":
        return np.clip(luma[..., None] * vector(1.02, 0.86, 0.66) + 12, 0, 255)
    edges = np.abs(np.gradient(luma, axis=0)) + np.abs(np.gradient(luma, axis=1))
    return np.clip(image * 0.18 + np.minimum(edges * 3, 255)[..., None] * vector(0.3, 1.0, 0.9), 0, 255)


def _gain(rng: np.random.Generator) -> tuple[float, float, float]:
    r, g, b = rng.uniform(0.88, 1.06) * rng.uniform(0.96, 1.04, 3)
    return float(r), float(g), float(b)


def random_placement(rng: np.random.Generator, x: float, y: float, scale: float, jitter: float = 0.05) -> Placement:
    """A placement near (x, y) with a random turn, mirror and light."""
    angle = float(rng.normal(0, 9)) if rng.random() < 0.6 else 0.0
    dx, dy = rng.uniform(-jitter, jitter, 2)
    return Placement(x + float(dx), y + float(dy), scale, angle, bool(rng.random() < 0.5), _gain(rng))


def arrange(rng: np.random.Generator, count: int) -> tuple[list[tuple[float, float, float]], str | None]:
    """Centres and scales for `count` sprites, and the relation of the first to the second."""
    if count == 1:
        scale = float(
            rng.choice([rng.uniform(0.26, 0.36), rng.uniform(0.4, 0.5), rng.uniform(0.58, 0.98)], p=[0.08, 0.12, 0.8])
        )
        loose = (1 - scale) * 0.4
        return [(0.5 + rng.uniform(-loose, loose), 0.5 + rng.uniform(-loose, loose), scale)], None
    if count == 2:
        scales = rng.uniform(0.38, 0.5, 2)
        relation = str(rng.choice(["left of", "right of", "above", "below"], p=[0.35, 0.35, 0.15, 0.15]))
        spots = {"left of": (0.26, 0.5, 0.74, 0.5), "right of": (0.74, 0.5, 0.26, 0.5)}
        spots |= {"above": (0.5, 0.26, 0.5, 0.74), "below": (0.5, 0.74, 0.5, 0.26)}
        ax, ay, bx, by = spots[relation]
        return [(ax, ay, float(scales[0])), (bx, by, float(scales[1]))], relation
    scales = rng.uniform(0.3, 0.38, 3)
    order = rng.permutation(3)
    return [(0.2 + 0.3 * float(order[i]), rng.uniform(0.35, 0.65), float(scales[i])) for i in range(3)], None


def _join(phrases: Sequence[str], relation: str | None, rng: np.random.Generator) -> tuple[str, str | None]:
    if len(phrases) == 1:
        return phrases[0], None
    if len(phrases) == 3:
        return f"{phrases[0]}, {phrases[1]} and {phrases[2]}", None
    if relation is None or rng.random() < 0.5:
        return f"{phrases[0]} {rng.choice(['and', 'next to', 'with'])} {phrases[1]}", None
    words = {"left of": "to the left of", "right of": "to the right of"}.get(relation, relation)
    return f"{phrases[0]} {words} {phrases[1]}", relation


def accessory_placement(name: str, host: Placement) -> Placement:
    """Where an accessory goes on its wearer."""
    up = {"crown": 0.5, "top hat": 0.52, "sunglasses": 0.2, "umbrella": 0.62, "balloon": 0.55}[name]
    wide = {"crown": 0.5, "top hat": 0.55, "sunglasses": 0.55, "umbrella": 0.7, "balloon": 0.5}[name]
    side = 0.45 if name == "balloon" else 0.0
    return Placement(host.x + side * host.scale, host.y - up * host.scale, wide * host.scale, gain=host.gain)


def upright(at: Placement, spot: tuple[float, float, float], count: int) -> Placement:
    """The same sprite as a product photograph would frame it: upright, not mirrored, in its place, as large as fits."""
    x, y = (0.5, 0.5) if count == 1 else (spot[0], spot[1] if count == 2 else 0.5)
    return dataclasses.replace(at, x=x, y=y, scale=(0.76, 0.505, 0.34)[count - 1], angle=0.0, mirror=False)


def usual(concept: str) -> Design:
    """The training design by which a concept is mostly drawn in posed scenes."""
    return sprites.load().members(concept, "train")[0]


def _scene_cast(rng: np.random.Generator, split: str, subjects: int | None) -> list[Design]:
    count = subjects or int(rng.choice([1, 2, 3], p=[0.72, 0.25, 0.03]))
    return [draw_design(rng, split) for _ in range(count)]


def _portrait_cast(rng: np.random.Generator) -> list[Design]:
    count = 1 if rng.random() < 0.65 else 2
    return [usual(draw_design(rng).concept) for _ in range(count)]


def cast(kind: str, key: int | str) -> list[str]:
    """The concepts of a training scene's sprites, without drawing it; `kind` is "compose" or "portrait"."""
    if kind == "portrait":
        return [design.concept for design in _portrait_cast(rng_for("portrait", key))]
    return [design.concept for design in _scene_cast(rng_for("scene", key, "train", None), "train", None)]


def compose(
    key: int | str,
    split: str = "train",
    size: int = 64,
    subjects: int | None = None,
    posed: float = 0.0,
    as_usual: float = USUAL,
    other_hands: float = 0.0,
    recolored: float = 0.07,
    looked: float = 0.0,
    said: float = 1.0,
) -> Scene:
    """The scene of a key, about a millisecond at 64 px.

    Args:
        key: any integer or string; the scene is a function of it and of the other arguments.
        split: "train" draws training designs by their frequency; "train_even", "held_out", "all" all concepts alike.
        size: side in pixels.
        subjects: force 1, 2 or 3 sprites; by default mostly one.
        posed: share of the scenes whose sprites stand upright, large and in the middle, `as_usual` of them in their
            concept's `usual` design. What a generator learns from, and, in any design, the pairs of a TIUE.
        other_hands: share of the sprites that are a `further` drawing of their concept instead.
        recolored: share of the sprites in a colour drawn at random.
        looked: share of the sprites in a look that is not held out.
        said: share of the looks that the caption tells; of the others it tells no colour.
    """
    rng = rng_for("scene", key, split, subjects)
    pose = rng_for("posed", key).random() < posed
    designs = _scene_cast(rng, split, subjects)
    count = len(designs)
    if pose and split == "train":
        often = rng_for("usual", key).random(count) < as_usual
        designs = [usual(d.concept) if o else d for d, o in zip(designs, often, strict=True)]
    spots, relation = arrange(rng, count)
    background = backgrounds.choose(rng)
    canvas = backgrounds.draw(background.name, rng, size)
    phrases, objects, placed = [], [], []
    for i, (design, spot) in enumerate(zip(designs, spots, strict=True)):
        at = random_placement(rng, *spot, jitter=0.03)
        if pose and (count > 1 or at.scale > SIZE_WORDS[1][0]):  # one that is called small stays small
            at = upright(at, spot, count)
        recolor = str(rng.choice(RECOLORS)) if rng.random() < recolored else None
        hands = rng_for("hands", key, i)
        other = further.draw(design.concept, hands) if hands.random() < other_hands else None
        if other:
            design, recolor = other.design, None if other.gain else recolor
            at = dataclasses.replace(at, gain=other.gain or at.gain)
        look = None if other else random_look(design, rng_for("look", key, i), looked)
        at = dataclasses.replace(at, recolor=None if look else recolor)
        placed.append(at)
        box = paste(canvas, looks.looked(design.id, look) if look else design.id, at)
        told = None if look and rng_for("said", key, i).random() >= said else look
        phrase = describe(design, at.scale, rng, recolor, told or (Look() if look else None))
        phrases.append(phrase)
        if box is not None:
            objects.append(SceneObject(design.id, design.concept, phrase, box, look.id if look else None))
    joined, named_relation = _join(phrases, relation, rng)
    if count == 1 and 0.45 < placed[0].scale < 0.8 and rng.random() < 0.12:
        accessory = str(rng.choice(ACCESSORIES))
        on = accessory_placement(accessory, placed[0])
        # The accessory comes from the training designs whatever the split: it is not the subject.
        drawing = sprites.load().members(accessory, "train")
        box = paste(canvas, drawing[int(rng.integers(len(drawing)))].id, on)
        worn = article(accessory)
        verb = "holding" if accessory in ("umbrella", "balloon") else "wearing"
        joined = f"{joined} {verb} {worn}"
        if box is not None:
            objects.append(SceneObject("", accessory, worn, box))
    caption = f"{joined} {background.phrase}"
    style = str(rng.choice(list(FILTERS))) if rng.random() < 0.07 else None
    if style:
        canvas = apply_style(canvas, style)
        caption = str(rng.choice(FILTERS[style])).format(caption)
    else:
        caption = str(rng.choice(OPENINGS)).format(caption)
    image = np.clip(canvas, 0, 255).astype(np.uint8)
    return Scene(image, caption, tuple(objects), background, named_relation, style)


def random_look(design: Design, rng: np.random.Generator, share: float) -> Look | None:
    """A look for a training scene, none that is held out, with a chance of `share`."""
    if rng.random() >= share:
        return None
    return looks.draw(rng, design.concept, sprites.load().has_second(design.id), held=False)


def portrait(key: int | str, size: int = 64, looked: float = 0.0) -> Scene:
    """A scene that is asked for in the fewest words: one concept, sometimes two, on a plain or drawn background.

    Training designs only, by their frequency; posed, in the usual design. `looked` of them are in a look that is said.
    """
    rng = rng_for("portrait", key)
    designs = _portrait_cast(rng)
    count = len(designs)
    spots, _ = arrange(rng, count)
    background = next(b for b in iter(lambda: backgrounds.choose(rng), None) if b.kind != "pattern")
    canvas = backgrounds.draw(background.name, rng, size)
    objects = []
    for i, (design, spot) in enumerate(zip(designs, spots, strict=True)):
        look = random_look(design, rng_for("look", key, i), looked)
        sprite = looks.looked(design.id, look) if look else design.id
        box = paste(canvas, sprite, upright(random_placement(rng, *spot), spot, count))
        assert box is not None
        phrase = article(look.describe(design.concept) if look else design.concept)
        objects.append(SceneObject(design.id, design.concept, phrase, box, look.id if look else None))
    words = " and ".join(thing.phrase for thing in objects)
    caption = str(rng.choice(OPENINGS)).format(f"{words} {background.phrase}")
    return Scene(np.clip(canvas, 0, 255).astype(np.uint8), caption, tuple(objects), background)
