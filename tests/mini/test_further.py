"""Drawings by further hands: the world stays as it is, what is held out stays so, recognisers learn from them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from umm_bench.mini.recipes.clip import SCORING
from umm_bench.mini.recipes.detector_data import PromptConfig, training_batch
from umm_bench.mini.recipes.singles import single
from umm_bench.mini.world import further, scenes, sprites
from umm_bench.mini.world.colors import PALETTE


def test_they_are_drawings_of_training_concepts_and_no_designs_of_the_world():
    world, drawings = sprites.load(), further.load()
    assert sum(map(len, drawings.values())) > 3000 and len(drawings) > 800
    for name, of in drawings.items():
        assert world.by_name[name].split == "train"
        for design in of:
            assert design.id not in world.designs and design.concept == name
    shown = [world.rgba(of[0].id) for of in list(drawings.values())[:50]]
    assert all(rgba.shape == (96, 96, 4) and (rgba[..., 3] > 128).any() for rgba in shown)


def test_a_designer_who_is_held_out_of_a_concept_is_held_out_here_too():
    world = sprites.load()
    hands = set()
    for name, of in further.load().items():
        absent = {sprites.designer(d.style) for d in world.members(name, "held_out")}
        hidden = {style for style, hand in further.DESIGNERS.items() if hand in absent}
        assert not hidden & {design.id.split("/")[1] for design in of}
        hands |= hidden
    assert hands == set(further.DESIGNERS), "each of them is held out somewhere"


def test_no_id_is_taken_twice():
    world = sprites.load()
    with pytest.raises(ValueError, match="is a design already"):
        world.add("fox/noto", b"")


def test_a_monochrome_drawing_has_the_colour_that_is_said_of_it():
    rng = scenes.rng_for("monochrome")
    drawn = [further.draw("fox", rng) for _ in range(60)]
    colored = [d for d in drawn if d.gain]
    assert colored and len(colored) < len(drawn)
    for drawing in colored[:8]:
        (color,) = drawing.design.colors
        canvas = np.full((64, 64, 3), 128, np.float32)
        scenes.paste(canvas, drawing.design.id, scenes.Placement(0.5, 0.5, 0.9, gain=drawing.gain))
        changed = canvas[np.abs(canvas - 128).max(2) > 30] if color != "gray" else canvas[30:34, 30:34].reshape(-1, 3)
        assert np.abs(np.median(changed, 0) - PALETTE[color]).max() < 25, drawing


def test_scenes_have_as_many_of_them_as_asked_and_none_unasked():
    world = sprites.load()

    def others(share):
        made = [scenes.compose(f"hands-{i}", other_hands=share) for i in range(80)]
        return np.mean([o.design not in world.designs for s in made for o in s.objects if o.design])

    assert others(0.0) == 0 and 0.25 < others(0.5) < 0.65 and others(1.0) > 0.9
    for i in range(40):
        plain, other = scenes.compose(f"hands-{i}"), scenes.compose(f"hands-{i}", other_hands=1.0)
        assert [o.concept for o in plain.objects] == [o.concept for o in other.objects]


def test_the_judges_learn_from_them():
    plain = dataclasses.replace(SCORING, further=0.0, varied=0.0, recolor=0.0, looked=0.0)
    every = dataclasses.replace(plain, further=1.0)
    a, b = [single(f"k{i}", plain) for i in range(20)], [single(f"k{i}", every) for i in range(20)]
    assert SCORING.further > 0 and [one.name for one in a] == [one.name for one in b]
    assert np.mean([np.array_equal(x.image, y.image) for x, y in zip(a, b, strict=True)]) < 0.2


def test_the_detectors_batches_have_them(monkeypatch):
    from umm_bench.mini.recipes.detector import DetectorConfig, build_detector

    seen, draw = [], further.draw
    monkeypatch.setattr(further, "draw", lambda *args: seen.append(draw(*args)) or seen[-1])
    _, processor = build_detector(DetectorConfig(d_model=32, heads=2, ffn=32, text_width=32))
    training_batch(0, dataclasses.replace(PromptConfig(), other_hands=0.0), processor, 8)
    assert not seen
    training_batch(0, PromptConfig(), processor, 16)
    assert any(seen)
