"""The mini suite in DreamBench's layout: held-out subjects, each on a few pictures, and prompts of five kinds."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from umm_bench.mini.world import backgrounds, scenes, sprites

VERSION = "mini/1.1"
REFERENCES = 5
PIXELS = 96
NATURAL = ("animals-nature", "food-drink", "objects")  # groups whose rare names people know

PROMPTS: tuple[dict[str, Any], ...] = (
    {"id": "blue", "kind": "recontextualise", "template": "a {subject} on a blue background", "background": "blue"},
    {"id": "beach", "kind": "recontextualise", "template": "a {subject} on a beach", "background": "beach"},
    {"id": "crown", "kind": "accessorise", "template": "a {subject} wearing a crown on a green background",
     "background": "green", "other": "crown", "relation": "wearing"},
    {"id": "tiny", "kind": "property", "template": "a tiny {subject} on a yellow background", "background": "yellow",
     "size": "tiny"},
    {"id": "pixel", "kind": "style", "template": "pixel art of a {subject} on a red background", "background": "red",
     "style": "pixel art"},
    {"id": "banana", "kind": "two_subjects", "template": "a {subject} next to a banana on a white background",
     "background": "white", "other": "banana", "relation": "next to"},
    {"id": "snow", "kind": "recontextualise", "template": "a {subject} in the snow", "background": "snow"},
    {"id": "bricks", "kind": "recontextualise", "template": "a {subject} in front of a brick wall",
     "background": "brick wall"},
    {"id": "night", "kind": "recontextualise", "template": "a {subject} under a night sky", "background": "night sky"},
    {"id": "hat", "kind": "accessorise", "template": "a {subject} wearing a top hat in a meadow",
     "background": "meadow", "other": "top hat", "relation": "wearing"},
    {"id": "big", "kind": "property", "template": "a big {subject} on a pink background", "background": "pink",
     "size": "big"},
    {"id": "gray", "kind": "style", "template": "a black and white photo of a {subject} on a beach",
     "style": "black and white"},
    {"id": "dog", "kind": "two_subjects", "template": "a {subject} to the left of a dog on a light blue background",
     "background": "light blue", "other": "dog", "relation": "left of"},
)  # fmt: skip

PAIR_PROMPTS: tuple[dict[str, Any], ...] = (
    {"id": "beside", "kind": "two_references",
     "template": "a {subject_1} next to a {subject_2} on a light blue background", "background": "light blue"},
    {"id": "together", "kind": "two_references", "template": "a {subject_1} and a {subject_2} on a white background",
     "background": "white"},
    {"id": "left", "kind": "two_references",
     "template": "a {subject_1} to the left of a {subject_2} on a green background", "background": "green"},
)  # fmt: skip


def subjects() -> list[dict[str, Any]]:
    """Held-out designs: of every four, three of frequent concepts and one of a rare or never seen concept."""
    world = sprites.load()
    frequent, rare = [], []
    for concept in world.concepts:
        held = world.members(concept.name, "held_out")
        if not held:
            continue
        # The 3D rendering where the designer has one: the richest appearance.
        design = next((d for d in held if d.style == "fluent-3d"), held[0])
        entry = {
            "id": design.id.replace("/", "_"),
            "class_noun": concept.name,
            "kind": "live" if concept.group == "animals-nature" else "object",
            "design": design.id,
            "rank": concept.rank,
            "seen": concept.split == "train",
        }
        if concept.rank < 60:
            frequent.append(entry)
        elif concept.rank > 400 and len(concept.name.split()) == 1 and concept.group in NATURAL:
            rare.append(entry)
    chosen = []
    for i in range(7):
        chosen += [*frequent[3 * i : 3 * i + 3], rare[i]]
    return chosen


def pairs(chosen: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Two subjects each: four of frequent concepts, then a frequent with a rare one."""
    frequent = [entry["id"] for entry in chosen if entry["rank"] < 60]
    rare = [entry["id"] for entry in chosen if entry["rank"] >= 60]
    found = [(frequent[2 * i], frequent[2 * i + 1]) for i in range(4)] + [(frequent[8], rare[0])]
    return [{"id": f"{a}+{b}", "subjects": [a, b]} for a, b in found]


def reference(design_id: str, index: int) -> np.ndarray:
    """The index-th picture of a subject, uint8 [96, 96, 3]: own place, turn, light and background."""
    rng = scenes.rng_for("suite-reference", design_id, index)
    canvas = backgrounds.draw(backgrounds.choose(rng).name, rng, PIXELS)
    at = scenes.random_placement(rng, 0.5, 0.5, float(rng.uniform(0.65, 0.92)), jitter=0.04)
    scenes.paste(canvas, design_id, at)
    return np.clip(canvas, 0, 255).astype(np.uint8)


def build(folder: Path | None = None) -> Path:
    """Write the suite (default ./data/mini-suite-VERSION), whole or not at all; nothing is done when it is there."""
    folder = folder or Path("data") / f"mini-suite-{VERSION.split('/')[1]}"
    if (folder / "prompts.json").exists():
        return folder
    temporary = folder.with_name(folder.name + ".part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    chosen = subjects()
    for subject in chosen:
        (temporary / subject["id"]).mkdir()
        for index in range(REFERENCES):
            picture = Image.fromarray(reference(subject["design"], index))
            picture.save(temporary / subject["id"] / f"{index:02d}.png")
    (temporary / "subjects.json").write_text(json.dumps(chosen, indent=1))
    (temporary / "pairs.json").write_text(json.dumps(pairs(chosen), indent=1))
    (temporary / "prompts.json").write_text(json.dumps([*PROMPTS, *PAIR_PROMPTS], indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)
    return folder
