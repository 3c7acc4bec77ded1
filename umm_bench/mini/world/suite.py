"""The mini suite in DreamBench's layout: subjects on a few pictures, prompts for one and for two, in strata.

A subject is a drawing in a look. Its stratum says what of it is new to the generator, and how often its concept was
there to be learnt:

- `usual`: the drawing by which the concept is mostly drawn, as drawn; the control, which a name alone asks for;
- `look`: that same drawing in a look that no training saw;
- `drawing`: a designer's drawing that no training saw, as drawn;

each `frequent` or `rare`, and drawings of concepts that were `never` seen.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from atomic import whole_folder
from umm_bench.mini.world import backgrounds, looks, scenes, sprites
from umm_bench.mini.world.looks import Look
from umm_bench.mini.world.sprites import Concept, Design

VERSION = "mini/3"
REFERENCES = 5
PIXELS = 96
NATURAL = ("animals-nature", "food-drink", "objects")  # groups whose rare names people know
FREQUENT, RARE = range(60), range(100, 400)  # ranks of concepts
LEAST_MAIN, LEAST_AREA = 0.55, 0.25  # of a drawing, and of its square, in the main region: a look on it is seen

# How many subjects of each stratum.
STRATA: dict[tuple[str, str], int] = {
    ("look", "frequent"): 8,
    ("look", "rare"): 5,
    ("drawing", "frequent"): 4,
    ("usual", "frequent"): 2,
    ("drawing", "rare"): 3,
    ("drawing", "never"): 3,
    ("usual", "rare"): 2,
}
# How many pairs of each kind: of one class or two, in like colours or unlike ones.
PAIRS: dict[tuple[str, str], int] = {
    ("two classes", "unlike"): 5,
    ("one class", "unlike"): 4,
    ("two classes", "like"): 4,
    ("one class", "like"): 3,
}

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
    {"id": "purple", "kind": "property", "template": "a purple {subject} on a white background", "background": "white",
     "says": {"main": "purple"}},
    {"id": "stripes", "kind": "property", "template": "a {subject} with white stripes on a blue background",
     "background": "blue", "says": {"pattern": "stripes", "mark": "white"}},
    {"id": "big", "kind": "property", "template": "a big {subject} on a pink background", "background": "pink",
     "size": "big"},
    {"id": "gray", "kind": "style", "template": "a black and white photo of a {subject} on a beach",
     "style": "black and white"},
    {"id": "dog", "kind": "two_subjects", "template": "a {subject} to the left of a dog on a light blue background",
     "background": "light blue", "other": "dog", "relation": "left of"},
    {"id": "pair-left", "kind": "two_references", "background": "light blue", "relation": "left of",
     "template": "a {subject_1} to the left of a {subject_2} on a light blue background"},
    {"id": "pair-and", "kind": "two_references", "background": "white", "relation": "next to",
     "template": "a {subject_1} and a {subject_2} on a white background"},
    {"id": "pair-snow", "kind": "two_references", "background": "snow", "relation": "next to",
     "template": "a {subject_1} next to a {subject_2} in the snow"},
)  # fmt: skip


def frequency(concept: Concept) -> str | None:
    """ "frequent", "rare" or "never" seen; None for what is between, and for rare names that people do not know."""
    known = len(concept.name.split()) == 1 and concept.group in NATURAL
    if concept.split != "train":
        return "never" if known else None
    if concept.rank in FREQUENT:
        return "frequent"
    return "rare" if concept.rank in RARE and known else None


def shows_looks(design: Design) -> bool:
    """Whether a drawing's regions are such that a look on it is seen: a large main one, and a second."""
    main = sprites.load().regions(design.id) == looks.MAIN
    solid = sprites.load().rgba(design.id)[..., 3] > 60
    large = main.sum() > LEAST_MAIN * solid.sum() and main.mean() > LEAST_AREA
    return bool(large) and sprites.load().has_second(design.id)


def held_out_look(design: Design, *key: object) -> Look:
    """A look of a drawing that no training saw; it has all parts two times in three."""
    rng = scenes.rng_for("suite-look", design.id, *key)
    while True:
        look = looks.draw(rng, design.concept, has_second=True, held=True)
        if (look.second and look.pattern) or rng.random() < 0.2:
            return look


def _entry(design: Design, look: Look | None, stratum: str) -> dict[str, Any]:
    concept = sprites.load().by_name[design.concept]
    words = [concept.name, *(part for part in (look.id.split("/") if look else [design.style]) if part != "-")]
    return {
        "id": "-".join(words).replace(" ", "-"),
        "class_noun": concept.name,
        "kind": "live" if concept.group == "animals-nature" else "object",
        "design": looks.looked(design.id, look) if look else design.id,
        "stratum": stratum,
        "frequency": frequency(concept),
        "rank": concept.rank,
        "seen": concept.split == "train",
    }


def _candidates(stratum: str, often: str) -> Iterator[dict[str, Any]]:
    world = sprites.load()
    for concept in world.concepts:
        if frequency(concept) != often:
            continue
        if stratum == "drawing":
            held = world.members(concept.name, "held_out")
            # The 3D rendering where the designer has one: the richest appearance.
            design = next((d for d in held if d.style == "fluent-3d"), held[0]) if held else None
        else:
            design = scenes.usual(concept.name)
            if not shows_looks(design):
                continue
        if design is not None:
            yield _entry(design, held_out_look(design) if stratum == "look" else None, stratum)


def subjects() -> list[dict[str, Any]]:
    """The subjects that are drawn alone, the strata mixed evenly, so that the first few are of several."""
    taken: set[str] = set()
    turns = []
    for (stratum, often), number in STRATA.items():
        fresh = (entry for entry in _candidates(stratum, often) if entry["class_noun"] not in taken)
        column = list(islice(fresh, number))
        taken |= {entry["class_noun"] for entry in column}
        turns += [((turn + 0.5) / number, entry) for turn, entry in enumerate(column)]
    return [entry for _, entry in sorted(turns, key=lambda pair: pair[0])]


def pairs() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The pairs, and the subjects that are there for them only."""
    alone = [entry for entry in subjects() if (entry["stratum"], entry["frequency"]) == ("look", "frequent")]
    partners: dict[str, dict[str, Any]] = {}
    made = []
    for turn, (classes, colors) in enumerate(kind for kind, number in PAIRS.items() for _ in range(number)):
        for step in range(len(alone)):
            first = alone[(turn + step) % len(alone)]
            other = first if classes == "one class" else alone[(turn + step + 3) % len(alone)]
            partner = _partner(first, other, colors == "like", turn)
            if partner:
                break
        else:
            raise ValueError(f"no subject has a partner of {classes} in {colors} colours")
        partners.setdefault(partner["id"], partner)
        order = [first["id"], partner["id"]] if turn % 2 == 0 else [partner["id"], first["id"]]
        made.append({"id": "+".join(order), "subjects": order, "classes": classes, "colors": colors})
    return made, list(partners.values())


def _partner(first: dict[str, Any], of: dict[str, Any], like: bool, turn: int) -> dict[str, Any] | None:
    """A subject of the class of `of` in a held-out look: of the first one's main colour, or of none of its colours.

    Its pattern is another one. None where a hundred draws give none such.
    """
    look = looks.split_id(first["design"])[1]
    drawing = sprites.load().designs[looks.split_id(of["design"])[0]]
    assert look is not None
    for attempt in range(100):
        found = held_out_look(drawing, "pair", turn, attempt)
        if like and look.main not in (found.second, found.mark):
            found = replace(found, main=look.main)
        shared = {found.main, found.second, found.mark} & {look.main, look.second, look.mark} - {None}
        suits = found.main == look.main if like else not shared
        if suits and found.pattern != look.pattern and looks.held_out(drawing.concept, found):
            return _entry(drawing, found, "pair")
    return None


def reference(sprite_id: str, index: int) -> np.ndarray:
    """The index-th picture of a subject, uint8 [96, 96, 3]: own place, turn, light and background."""
    rng = scenes.rng_for("suite-reference", sprite_id, index)
    canvas = backgrounds.draw(backgrounds.choose(rng).name, rng, PIXELS)
    at = scenes.random_placement(rng, 0.5, 0.5, float(rng.uniform(0.65, 0.92)), jitter=0.04)
    scenes.paste(canvas, sprite_id, at)
    return np.clip(canvas, 0, 255).astype(np.uint8)


def build(folder: Path | None = None) -> Path:
    """Write the suite (default ./data/mini-suite-VERSION), whole or not at all; nothing is done when it is there and
    whole."""
    folder = folder or Path("data") / f"mini-suite-{VERSION.split('/')[1]}"
    if not is_whole(folder):
        with whole_folder(folder, is_whole) as unfinished:
            _write(unfinished)
    return folder


def is_whole(folder: Path) -> bool:
    """Whether the folder holds prompts, pairs, and all pictures of each subject that it lists."""
    try:
        listed = json.loads((folder / "subjects.json").read_text())
        for name in ("prompts", "pairs"):
            json.loads((folder / f"{name}.json").read_text())
        pictures = [folder / subject["id"] / f"{index:02d}.png" for subject in listed for index in range(REFERENCES)]
        return bool(pictures) and all(picture.stat().st_size for picture in pictures)
    except (OSError, ValueError, LookupError, TypeError):  # not there, or damaged
        return False


def _write(folder: Path) -> None:
    two, partners = pairs()
    chosen = [*subjects(), *partners]
    for subject in chosen:
        (folder / subject["id"]).mkdir()
        for index in range(REFERENCES):
            picture = Image.fromarray(reference(subject["design"], index))
            picture.save(folder / subject["id"] / f"{index:02d}.png")
    for name, entries in (("subjects", chosen), ("pairs", two), ("prompts", PROMPTS)):
        (folder / f"{name}.json").write_text(json.dumps(entries, indent=1))
