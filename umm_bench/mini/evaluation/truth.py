"""The ground-truth checker itself: how often is it right about composed pictures, whose truth is known?

Every verdict is asked for as often where it should be yes as where it should be no, so always saying yes is right half
of the time. The pictures are composed from keys of their own; the drawings are held-out designs that are no subjects of
the suite, because the suite's subjects (and training designs) are what the checker was tuned on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from figures import Figure
from umm_bench.mini.checking import checker
from umm_bench.mini.evaluation.intervals import share
from umm_bench.mini.world import backgrounds, looks, scenes, sprites, suite
from umm_bench.mini.world.sprites import Design

VALIDATION, TUNING = "checker-validate", "checker-tune"  # keys of the pictures
SUBJECTS, GROUPS = 60, 40  # designs shown alone, and in groups
PROMPTS = tuple(prompt for prompt in suite.PROMPTS if "background" in prompt)
WRONG = ("design", "concept", "blank", "blob")
RELATIONS = {"left of": (0.27, 0.5, 0.73, 0.5), "right of": (0.73, 0.5, 0.27, 0.5), "above": (0.5, 0.27, 0.5, 0.73)}


def validation_designs(number: int = SUBJECTS) -> list[Design]:
    """Held-out designs that are no subjects of the suite and have rivals in their concept, spread over the ranks."""
    world = sprites.load()
    tuned = {world.designs[looks.split_id(s["design"])[0]].identity for s in suite.subjects()}
    pool = [d for c in world.concepts for d in world.members(c.name, "held_out") if d.identity not in tuned]
    pool = [d for d in pool if len({m.identity for m in world.members(d.concept)}) > 1]
    return pool[:: max(1, len(pool) // number)][:number]


def posed(design_id: str | None, prompt: dict[str, Any], key: str, blob: str | None = None) -> np.ndarray:
    """What a perfect generator would draw for a suite prompt, uint8 [64, 64, 3].

    Without a design only its place is left out; with `blob`, an ellipse in that design's mean colour is there.
    """
    rng = scenes.rng_for(key, prompt["id"], design_id, blob)
    canvas = backgrounds.draw(prompt["background"], rng, 64)
    beside = prompt["kind"] == "two_subjects"
    scale = 0.3 if prompt.get("size") == "tiny" else float(rng.uniform(0.4, 0.5) if beside else rng.uniform(0.6, 0.95))
    at = scenes.random_placement(rng, 0.27 if beside else 0.5, 0.5, scale)
    if design_id is not None:
        scenes.paste(canvas, design_id, at)
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


def _blob(canvas: np.ndarray, design_id: str, at: scenes.Placement) -> None:
    """An ellipse in a drawing's mean colour, in its place."""
    rgba = sprites.load().rgba(design_id)
    color = rgba[rgba[..., 3] > 128][:, :3].mean(0)
    size = canvas.shape[0]
    mask = Image.new("L", (size, size))
    half = 0.42 * at.scale
    box = tuple(size * edge for edge in (at.x - half, at.y - half * 0.8, at.x + half, at.y + half * 0.8))
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    canvas[np.asarray(mask) > 0] = color


def group(design_ids: Sequence[str], background: str, key: str, spots: Sequence[tuple[float, float]]) -> np.ndarray:
    """Drawings side by side at (x, y), uint8 [64, 64, 3]."""
    rng = scenes.rng_for(key, background, *design_ids)
    canvas = backgrounds.draw(background, rng, 64)
    for design_id, (x, y) in zip(design_ids, spots, strict=True):
        scale = float(rng.uniform(0.36, 0.44)) if len(spots) < 3 else float(rng.uniform(0.3, 0.36))
        scenes.paste(canvas, design_id, scenes.random_placement(rng, x, y, scale, jitter=0.03))
    return np.clip(canvas, 0, 255).astype(np.uint8)


def figures() -> Iterator[Figure]:
    """Accuracy of each verdict on the validation set."""
    designs = validation_designs()
    yield from subject_figures(designs, VALIDATION)
    yield count_figure(designs[-GROUPS:], VALIDATION)
    yield relation_figure(designs[-GROUPS:], VALIDATION)


def subject_figures(designs: Sequence[Design], key: str) -> Iterator[Figure]:
    """Identity, concept and background, on suite prompts: the subject itself, and something else in its place."""
    right: dict[str, list[bool]] = {"identity": [], "concept": [], "background": []}
    wrongly: dict[str, int] = dict.fromkeys(("refused", *WRONG), 0)
    for index, design in enumerate(designs):
        prompt = PROMPTS[index % len(PROMPTS)]
        kind = WRONG[(index + index // len(PROMPTS)) % len(WRONG)]  # each kind meets every prompt
        itself, other = posed(design.id, prompt, key), _wrong(design, prompt, kind, key)
        yes, no = (checker.check(image, design.id, prompt) for image in (itself, other))
        elsewhere = checker.check(itself, design.id, _other_background(prompt, key, design))
        right["identity"] += [bool(yes["identity"]), not no["identity"]]
        if kind != "design":  # there the concept is right as well
            right["concept"] += [bool(yes["concept"]), not no["concept"]]
        right["background"] += [bool(yes["background"]), not elsewhere["background"]]
        wrongly["refused"] += not yes["identity"]
        wrongly[kind] += no["identity"]
    note = "identity wrongly " + ", ".join(f"{name} {n}" for name, n in wrongly.items())
    for part, verdicts in right.items():
        yield share(f"checker.{part}", verdicts, 0.95, note if part == "identity" else "")


def _other_background(prompt: dict[str, Any], key: str, design: Design) -> dict[str, Any]:
    names = [name for name in backgrounds.every_name() if name != prompt["background"]]
    return {**prompt, "background": str(scenes.rng_for(key, "background", design.id).choice(names))}


def _wrong(design: Design, prompt: dict[str, Any], kind: str, key: str) -> np.ndarray:
    """A picture without the subject: another design of its concept, another concept, nothing, or a blob."""
    world, rng = sprites.load(), scenes.rng_for(key, kind, design.id)
    if kind == "design":
        others = [d.id for d in world.members(design.concept) if d.identity != design.identity]
        return posed(others[int(rng.integers(len(others)))], prompt, key)
    if kind == "concept":
        others = [d.id for d in world.designs.values() if d.concept != design.concept]
        return posed(others[int(rng.integers(len(others)))], prompt, key)
    return posed(None, prompt, key, design.id if kind == "blob" else None)


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
