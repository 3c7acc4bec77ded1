"""The ground-truth checker itself: how often is it right about composed pictures, whose truth is known?

Every verdict is asked for as often where it should be yes as where it should be no, so always saying yes is right half
of the time. The pictures are composed from keys of their own; the drawings are held-out designs that are no subjects of
the suite, because the suite's subjects (and training designs) are what the checker was tuned on, and most are in looks
that are held out. The same pictures, encoded and decoded by the family's VAE, show what a generator's blur costs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from figures import Figure
from umm_bench.mini import family
from umm_bench.mini.checking import checker, pairs
from umm_bench.mini.evaluation.intervals import share
from umm_bench.mini.world import backgrounds, looks, scenes, sprites, suite
from umm_bench.mini.world.looks import Look
from umm_bench.mini.world.sprites import Design

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

VALIDATION, TUNING = "checker-validate", "checker-tune"  # keys of the pictures
SUBJECTS, GROUPS, PAIRS = 48, 24, 20  # designs shown alone, in groups, and beside another
DECODED, DECODED_PAIRS = 16, 8  # of these, so many also encoded and decoded
PROMPTS = tuple(p for p in suite.PROMPTS if "background" in p and "says" not in p and p["kind"] != "two_references")
WRONG = ("design", "concept", "blank", "blob")
RELATIONS = {"left of": (0.27, 0.5, 0.73, 0.5), "right of": (0.73, 0.5, 0.27, 0.5), "above": (0.5, 0.27, 0.5, 0.73)}
ABREAST = [(0.27, 0.5), (0.73, 0.5)]
VISIBLE = 8.0  # squared difference, in colours of [0, 1] summed over 64 x 64 pixels: looks nearer look the same
LABELS = {
    "right": ["right", "right"],
    "swapped": ["swap", "swap"],
    "blended": ["blending", "right"],
    "missing": ["right", "missing"],
}

Seen = Callable[[np.ndarray], np.ndarray]  # what becomes of a picture before the checker sees it


def validation_designs(number: int = SUBJECTS) -> list[Design]:
    """Held-out designs that are no subjects of the suite and have rivals in their concept, spread over the ranks."""
    world = sprites.load()
    tuned = {world.designs[looks.split_id(s["design"])[0]].identity for s in suite.subjects()}
    pool = [d for c in world.concepts for d in world.members(c.name, "held_out") if d.identity not in tuned]
    pool = [d for d in pool if len({m.identity for m in world.members(d.concept)}) > 1]
    return pool[:: max(1, len(pool) // number)][:number]


def validation_look(design: Design, index: int, key: str) -> Look:
    """As drawn for every fourth, else a look that is held out."""
    if index % 4 == 3:
        return Look()
    rng = scenes.rng_for(key, "look", design.id)
    return looks.draw(rng, design.concept, sprites.load().has_second(design.id), held=True)


def sprite_of(design_id: str, look: Look) -> str:
    """The name of a drawing in a look."""
    return design_id if look == Look() else looks.looked(design_id, look)


def near_miss(design: Design, look: Look, key: str) -> Look:
    """A look of the drawing that differs in one part, for all to see."""
    rng = scenes.rng_for(key, "near miss", design.id)
    misses: dict[str, list[Look]] = {}
    for part, miss in looks.near_misses(look, sprites.load().has_second(design.id)):
        if sprite_difference(sprite_of(design.id, look), sprite_of(design.id, miss)) > VISIBLE:
            misses.setdefault(part, []).append(miss)
    among = misses[str(rng.choice(sorted(misses)))]
    return among[int(rng.integers(len(among)))]


def sprite_difference(one: str, other: str, scale: float = 0.5) -> float:
    """How far two sprites differ where each takes `scale` of a picture, as `Match.explained`."""
    seen, unseen = (sprites.load().rgba(sprite).astype(np.float32) / 255 for sprite in (one, other))
    squares = ((seen[..., :3] - unseen[..., :3]) ** 2).sum(2) * seen[..., 3]
    return float(squares.mean()) * (scale * 64) ** 2


def posed(sprite_id: str | None, prompt: dict[str, Any], key: str, blob: str | None = None) -> np.ndarray:
    """What a perfect generator would draw for a suite prompt, uint8 [64, 64, 3].

    Without a sprite only its place is left out; with `blob`, an ellipse in that sprite's mean colour is there.
    """
    rng = scenes.rng_for(key, prompt["id"], sprite_id, blob)
    canvas = backgrounds.draw(prompt["background"], rng, 64)
    beside = prompt["kind"] == "two_subjects"
    scale = 0.3 if prompt.get("size") == "tiny" else float(rng.uniform(0.4, 0.5) if beside else rng.uniform(0.6, 0.95))
    at = scenes.random_placement(rng, 0.27 if beside else 0.5, 0.5, scale)
    if sprite_id is not None:
        scenes.paste(canvas, sprite_id, at)
    elif blob is not None:
        _blob(canvas, blob, at)
    if "other" in prompt:
        drawings = sprites.load().members(prompt["other"], "train")
        drawing = drawings[int(rng.integers(len(drawings)))].id
        other = scenes.random_placement(rng, 0.74, 0.5, 0.45)
        scenes.paste(canvas, drawing, other if beside else scenes.accessory_placement(prompt["other"], at))
    if "style" in prompt:
        canvas = scenes.apply_style(canvas, prompt["style"])
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _blob(canvas: np.ndarray, sprite_id: str, at: scenes.Placement) -> None:
    """An ellipse in a sprite's mean colour, in its place."""
    rgba = sprites.load().rgba(sprite_id)
    color = rgba[rgba[..., 3] > 128][:, :3].mean(0)
    size = canvas.shape[0]
    mask = Image.new("L", (size, size))
    half = 0.42 * at.scale
    box = tuple(size * edge for edge in (at.x - half, at.y - half * 0.8, at.x + half, at.y + half * 0.8))
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    canvas[np.asarray(mask) > 0] = color


def group(sprite_ids: Sequence[str], background: str, key: str, spots: Sequence[tuple[float, float]]) -> np.ndarray:
    """Drawings side by side at (x, y), uint8 [64, 64, 3]."""
    rng = scenes.rng_for(key, background, *sprite_ids)
    canvas = backgrounds.draw(background, rng, 64)
    for sprite_id, (x, y) in zip(sprite_ids, spots, strict=True):
        scale = float(rng.uniform(0.36, 0.44)) if len(spots) < 3 else float(rng.uniform(0.3, 0.36))
        scenes.paste(canvas, sprite_id, scenes.random_placement(rng, x, y, scale, jitter=0.03))
    return np.clip(canvas, 0, 255).astype(np.uint8)


def figures() -> Iterator[Figure]:
    """Accuracy of each verdict on the validation set, and of some on what the VAE makes of a part of it."""
    designs = validation_designs()
    yield from subject_figures(designs, VALIDATION)
    yield pair_figure(designs[:: len(designs) // PAIRS][:PAIRS], VALIDATION)
    yield count_figure(designs[-GROUPS:], VALIDATION)
    yield relation_figure(designs[-GROUPS:], VALIDATION)
    yield from subject_figures(designs[-DECODED:], VALIDATION, decoded, "checker.vae", None)
    yield pair_figure(designs[-DECODED_PAIRS:], VALIDATION, decoded, "checker.vae", None)


@functools.cache
def _vae() -> AutoencoderKL:
    import torch
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(family.path("sd") / "vae", torch_dtype=torch.float32).eval()


def decoded(image: np.ndarray) -> np.ndarray:
    """What the family's VAE makes of a picture, uint8 [64, 64, 3]."""
    import torch

    x_BCHW = torch.tensor(image).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.inference_mode():
        x_BCHW = _vae().decode(_vae().encode(x_BCHW).latent_dist.mean).sample.clamp(-1, 1)
    return ((x_BCHW[0].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()


def _as_composed(image: np.ndarray) -> np.ndarray:
    return image


def subject_figures(
    designs: Sequence[Design], key: str, seen: Seen = _as_composed, name: str = "checker", bar: float | None = 0.95
) -> Iterator[Figure]:
    """The verdicts about one subject, on suite prompts: itself, a near miss, and something else in its place.

    The near miss is asked for another background than it has.
    Identity is refused to near misses in half of the cases, to something else in the other half.
    """
    right: dict[str, list[bool]] = {
        part: [] for part in ("identity", "look", "drawing", "parts", "concept", "background")
    }
    wrongly: dict[str, int] = dict.fromkeys(("refused", "look", *WRONG), 0)
    for index, design in enumerate(designs):
        prompt = PROMPTS[index % len(PROMPTS)]
        kind = WRONG[(index + index // len(PROMPTS)) % len(WRONG)]  # each kind meets every prompt
        look = validation_look(design, index, key)
        miss = near_miss(design, look, key)
        sprite = sprite_of(design.id, look)
        elsewhere = _other_background(prompt, key, design)
        asked = [
            (posed(sprite, prompt, key), prompt),
            (posed(sprite_of(design.id, miss), prompt, key), elsewhere),
            (_wrong(design, look, prompt, kind, key), prompt),
        ]
        yes, near, no = (checker.check(seen(picture), sprite, words) for picture, words in asked)
        refused, how = (near, "look") if index // 2 % 2 else (no, kind)
        right["identity"] += [bool(yes["identity"]), not refused["identity"]]
        right["look"] += [bool(yes["look"]), not near["look"]]
        right["parts"] += _parts_right(yes, near, look, miss)
        if kind == "design":  # there the concept is right as well
            right["drawing"] += [bool(yes["drawing"]), not no["drawing"]]
        else:
            right["concept"] += [bool(yes["concept"]), not no["concept"]]
        right["background"] += [bool(yes["background"]), not near["background"]]
        wrongly["refused"] += not yes["identity"]
        wrongly[how] += refused["identity"]
    note = "identity wrongly " + ", ".join(f"{name} {n}" for name, n in wrongly.items())
    for part, verdicts in right.items():
        if verdicts:
            yield share(f"{name}.{part}", verdicts, bar, note if part == "identity" else "")


def _parts_right(yes: dict[str, Any], near: dict[str, Any], look: Look, miss: Look) -> list[bool]:
    """Of the parts that tell a look from a near miss: told right in the one picture, and wrong in the other."""
    verdicts = []
    for part in looks.PARTS:
        value = getattr(look, part)
        if value and value != getattr(miss, part):
            verdicts += [bool(yes["parts"][part]["right"]), not near["parts"][part]["right"]]
    return verdicts


def _other_background(prompt: dict[str, Any], key: str, design: Design) -> dict[str, Any]:
    names = [name for name in backgrounds.every_name() if name != prompt["background"]]
    return {**prompt, "background": str(scenes.rng_for(key, "background", design.id).choice(names))}


def _wrong(design: Design, look: Look, prompt: dict[str, Any], kind: str, key: str) -> np.ndarray:
    """A picture without the subject: another design of its concept or another concept in its look, nothing, a blob."""
    world, rng = sprites.load(), scenes.rng_for(key, kind, design.id)
    if kind == "design":
        others = [d.id for d in world.members(design.concept) if d.identity != design.identity]
        return posed(sprite_of(others[int(rng.integers(len(others)))], look), prompt, key)
    if kind == "concept":
        others = [d.id for d in world.designs.values() if d.concept != design.concept]
        return posed(sprite_of(others[int(rng.integers(len(others)))], look), prompt, key)
    return posed(None, prompt, key, sprite_of(design.id, look) if kind == "blob" else None)


def pair_figure(
    designs: Sequence[Design], key: str, seen: Seen = _as_composed, name: str = "checker", bar: float | None = 0.95
) -> Figure:
    """The labels of two subjects: both right, and swapped, blended, or one missing; every other pair in one class."""
    right, wrongly = [], dict.fromkeys(LABELS, 0)
    for index, design in enumerate(designs):
        rng = scenes.rng_for(key, "pair", design.id)
        other = designs[(index + 1) % len(designs)] if index % 2 else design
        one, two = _two_looks(design, other, rng)
        background = _ground_for((one, two), rng)
        prompt = {"background": background, "relation": "left of"}
        sprite, beside = sprite_of(design.id, one), sprite_of(other.id, two)
        shown = {
            "right": [sprite, beside],
            "swapped": [sprite_of(design.id, two), sprite_of(other.id, one)],
            "blended": [sprite_of(design.id, replace(one, main=two.main)), beside],
            "missing": [sprite],
        }
        for case in ("right", ("swapped", "blended", "missing")[index // 2 % 3]):
            picture = seen(group(shown[case], background, key, ABREAST[: len(shown[case])]))
            verdict = pairs.check_pair(picture, [sprite, beside], prompt)
            wanted = LABELS[case]
            if case == "blended" and replace(one, main=two.main) == two:  # where the main colour is all that differs
                wanted = ["dominance", "right"]
            right.append([s["label"] for s in verdict["subjects"]] == wanted)
            wrongly[case] += not right[-1]
    note = "wrongly " + ", ".join(f"{case} {n}" for case, n in wrongly.items())
    return share(f"{name}.pair", right, bar, note)


def _two_looks(one: Design, two: Design, rng: np.random.Generator) -> tuple[Look, Look]:
    """Held-out looks for two drawings: the second's main colour is none of the first's."""
    second = all(sprites.load().has_second(design.id) for design in (one, two))
    while True:
        looks_of = tuple(looks.draw(rng, design.concept, second, held=True) for design in (one, two))
        if looks_of[1].main not in (looks_of[0].main, looks_of[0].second, looks_of[0].mark):
            return looks_of[0], looks_of[1]


def _ground_for(worn: Sequence[Look], rng: np.random.Generator) -> str:
    """A plain background in none of the looks' colours: what has its ground's colour is not to be seen."""
    colors = {color for look in worn for color in (look.main, look.second, look.mark)}
    return str(rng.choice([color for color in backgrounds.PLAIN_COLORS if color not in colors]))


def count_figure(designs: Sequence[Design], key: str) -> Figure:
    """One drawing of the concept where one is asked for; none, two or three where that is wrong."""
    spots = {0: [], 2: [(0.26, 0.5), (0.74, 0.5)], 3: [(0.2, 0.5), (0.5, 0.5), (0.8, 0.5)]}
    right = []
    for index, design in enumerate(designs):
        rng = scenes.rng_for(key, "count", design.id)
        background = str(rng.choice(backgrounds.PLAIN_COLORS))
        prompt = {"background": background}
        one = group([design.id], background, key, [(0.3 + 0.4 * float(rng.random()), 0.5)])
        right.append(bool(checker.check(one, design.id, prompt)["count"]))
        shown = (0, 2, 3)[index % 3]
        members = sprites.load().members(design.concept)
        several = [members[int(rng.integers(len(members)))].id for _ in range(shown)]
        picture = group(several, background, key, spots[shown])
        right.append(not checker.check(picture, design.id, prompt)["count"])
    return share("checker.count", right, 0.95, "none, two or three against one")


def relation_figure(designs: Sequence[Design], key: str) -> Figure:
    """Two things in a row or one above the other, asked for as they are, and the other way round."""
    world, right = sprites.load(), []
    for index, design in enumerate(designs):
        rng = scenes.rng_for(key, "relation", design.id)
        relation, (ax, ay, bx, by) = list(RELATIONS.items())[index % len(RELATIONS)]
        seen = [c for c in world.concepts[:40] if c.name != design.concept]
        other = seen[int(rng.integers(len(seen)))].name
        drawings = world.members(other, "train")
        pair = [design.id, drawings[int(rng.integers(len(drawings)))].id]
        background = str(rng.choice(backgrounds.PLAIN_COLORS))
        prompt = {"background": background, "other": other, "relation": relation}
        for asked, spots in ((True, [(ax, ay), (bx, by)]), (False, [(bx, by), (ax, ay)])):
            verdict = checker.check(group(pair, background, key, spots), design.id, prompt)
            right.append(bool(verdict["relation"]) == asked)
    return share("checker.relation", right, 0.95, "left of, right of, above; half of them the other way round")
