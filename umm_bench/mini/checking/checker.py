"""The ground-truth checker: which drawing in which look, which concept, which background, how many and where?

The identity is right when the subject's own drawing explains what is seen better than any other of its concept, all of
them in whatever look explains most (`sightings`), and when that look is the subject's.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from PIL import Image

from umm_bench.mini.checking import matching, repainted, sightings
from umm_bench.mini.checking.matching import Picture
from umm_bench.mini.checking.repainted import Reading
from umm_bench.mini.world import backgrounds, looks, scenes, sprites
from umm_bench.mini.world.looks import PARTS, Look

REPAINTED = ("black and white", "sepia", "neon")


def nearest_design(image: np.ndarray, concept: str) -> str:
    """Which drawing of a concept explains most of a picture (uint8 [S, S, 3]), however little that is."""
    return sightings.design_of(sightings.ranked(Picture(image), concept)[0][0]).id


def _profile(image: np.ndarray, covered: np.ndarray | None = None) -> np.ma.MaskedArray:
    """What tells backgrounds apart, from the picture's border: colour by height, contrast along rows and columns.

    What lies under `covered` (bool [S, S]) does not count; a feature that lies there altogether is masked.
    """
    small = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BOX), dtype=np.float32) / 255
    hidden = np.zeros((32, 32), bool)
    if covered is not None:
        hidden = np.asarray(Image.fromarray(covered).convert("L").resize((32, 32), Image.Resampling.BOX)) > 0
    seen = np.ma.array(small, mask=np.repeat(hidden[..., None], 3, -1))
    sides = np.ma.concatenate([seen[:, :4], seen[:, -4:]], axis=1)
    ends = np.ma.concatenate([seen[:3], seen[-3:]], axis=0)
    heights = sides.reshape(8, 4, 8, 3).mean((1, 2))
    contrast = [2 * abs(a[1:] - a[:-1]).mean((0, 1)) for b in (sides, ends) for a in (b, b.swapaxes(0, 1))]
    return np.ma.concatenate([heights.ravel() * 0.6, ends[:3].mean((0, 1)), ends[-3:].mean((0, 1)), *contrast])


@functools.cache
def _background_profiles() -> tuple[tuple[str, ...], np.ndarray]:
    names = backgrounds.every_name()
    drawn = [
        _profile(backgrounds.draw(name, scenes.rng_for("profile", name, k), 64).astype(np.uint8)).filled()
        for name in names
        for k in range(6)
    ]
    return tuple(name for name in names for _ in range(6)), np.stack(drawn)


def background_of(image: np.ndarray, covered: np.ndarray | None = None) -> str:
    """The background name whose renderings are nearest to the picture's border, as far as that is not `covered`."""
    names, profiles = _background_profiles()
    distance = abs(profiles - _profile(image, covered)).sum(1)
    return names[int(distance.argmin())]


def picture_of(image: Image.Image | np.ndarray, style: str | None) -> tuple[np.ndarray, Picture]:
    """An image's pixels, uint8 [S, S, 3], and the picture that is matched where a prompt names a style."""
    pixels = np.asarray(image.convert("RGB")) if isinstance(image, Image.Image) else image
    return pixels, Picture(pixels, gray=style in REPAINTED, pool=4 if style == "pixel art" else 2)


def compare(reading: Reading | None, wanted: Look, says: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Each part of a look: what is `wanted`, what is `found`, and whether that is `right`, as far as can be told.

    Without a reading nothing is found, and nothing right. Where a prompt `says` another value, the part also has
    `said` and `follows`: whether the picture has it of the "word", of the reference's "picture", or of "neither".
    """
    parts: dict[str, dict[str, Any]] = {}
    for part in PARTS:
        value = getattr(wanted, part)
        right = reading is not None and repainted.has(reading, part, value)
        parts[part] = {"wanted": value, "found": getattr(reading.look, part) if reading else None, "right": right}
        if part in says:
            word = reading is not None and repainted.has(reading, part, says[part])
            parts[part]["said"] = says[part]
            parts[part]["follows"] = "word" if word else "picture" if right else "neither"
    return parts


def check(image: Image.Image | np.ndarray, sprite_id: str, prompt: dict[str, Any]) -> dict[str, Any]:
    """Is the subject, its concept and the prompt's background in the picture, as often and where the prompt says?

    Args:
        image: PIL image or uint8 [S, S, 3].
        sprite_id: the subject's drawing, with its look where it has one ("fox/noto#teal/white/dots/yellow").
        prompt: an entry of `suite.PROMPTS`. What it `says` of parts of the look ({"main": "purple"}), the reference
            notwithstanding, is no matter of identity.

    Returns:
        concept, drawing, look: bool, whether the concept is there in whatever drawing and look, in the subject's
        drawing, and in its look; identity: all three; parts: by part of the look, what `compare` gives, None for one
        that the look does not have and the prompt does not say (it must be as drawn nonetheless, or `look` is False);
        background: bool, or None where the prompt names none or its style repaints it;
        count: whether the concept is there once, and the prompt's other thing too where it names one;
        relation: bool, None where the prompt names none; best_design: the drawing of the concept that explains most;
        score: the share it explains; margin: by how much of that the subject is ahead of the best other drawing.
    """
    design_id, look = looks.split_id(sprite_id)
    own, other, style = sprites.load().designs[design_id], prompt.get("other"), prompt.get("style")
    says = prompt.get("says", {})
    pixels, picture = picture_of(image, style)
    wanted = None if style in REPAINTED else prompt.get("background")
    things = []
    relation, complete = None, True
    if other:
        subject, beside = sightings.sight_both(picture, own.concept, other)
        complete = beside.present
        if "relation" in prompt:
            relation = sightings.relates(subject, beside, prompt["relation"])
        if beside.present:
            picture = picture.with_layer(beside.best)
            things.append(beside.best)
    else:
        subject = sightings.sight(picture, own.concept)
    if subject.present:
        things.append(subject.best)
    found = background_of(pixels, matching.covered(things))
    number = sightings.count(picture, own.concept, subject, other)
    parts = compare(subject.reading(own) if subject.present else None, look or Look(), says)
    alike = all(told["right"] for part, told in parts.items() if part not in says)
    return {
        # One drawing of the concept always explains most, also of a blank picture: it must be that concept first.
        "identity": subject.shows(own) and alike,
        "concept": subject.present,
        "drawing": subject.shows(own),
        "look": subject.present and alike,
        "parts": {part: told if told["wanted"] or part in says else None for part, told in parts.items()},
        "background": None if wanted is None else found == wanted,
        "count": number == 1 and complete,
        "relation": relation,
        "found": number,
        "best_design": sightings.design_of(subject.best).id,
        "score": subject.best.share,
        "margin": subject.lead_over_others(own),
        "found_background": found,
    }
