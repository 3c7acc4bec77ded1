"""A look repaints a drawing's regions and nothing else; captions say it; what is held out no training shows."""

from __future__ import annotations

import dataclasses
from itertools import product

import numpy as np
import pytest

from umm_bench.mini.recipes.clip import IMAGE_TOWER
from umm_bench.mini.recipes.encoder import EncoderRecipe
from umm_bench.mini.recipes.singles import PART_VALUES, part_labels, single
from umm_bench.mini.world import looks, scenes, sprites
from umm_bench.mini.world.colors import PALETTE
from umm_bench.mini.world.looks import Look
from umm_bench.mini.world.redraw import redraw

FOX = Look("teal", "white", "dots", "yellow")


def usual(name: str) -> str:
    return scenes.usual(name).id


def test_a_look_is_named_said_and_read_back():
    assert FOX.id == "teal/white/dots/yellow" and Look.parse(FOX.id) == FOX
    assert FOX.describe("fox") == "teal and white fox with yellow dots"
    assert Look(None, None, "stripes", "green").describe("fox") == "fox with green stripes"
    assert Look("red").describe("fox") == "red fox" and Look().describe("fox") == "fox"
    assert looks.split_id(looks.looked("a/b", FOX)) == ("a/b", FOX) and looks.split_id("a/b") == ("a/b", None)
    for text in ("teal", "teal/white/dots", "mauve/-/-/-", "teal/-/dots/-", "teal/-/-/red", "a/b/c/d"):
        with pytest.raises(ValueError):
            Look.parse(text)


@pytest.mark.parametrize("name", ["dog", "fox", "house", "red apple", "teapot"])
def test_only_the_regions_change_and_take_the_colours(name):
    world, design = sprites.load(), usual(name)
    before, after = world.rgba(design), world.rgba(looks.looked(design, FOX))
    kinds = world.regions(design)
    assert np.array_equal(before[..., 3], after[..., 3]), "the outline stays"
    assert np.array_equal(before[kinds == looks.FIXED], after[kinds == looks.FIXED])
    main = (kinds == looks.MAIN) & (before[..., 3] > 200)
    on = looks.marks("dots")
    for where, color in ((main & ~on, "teal"), (main & on, "yellow")):
        hue, wanted = np.median(after[where][:, :3].astype(float), 0), np.array(PALETTE[color], float)
        assert np.abs(hue / hue.sum() - wanted / wanted.sum()).max() < 0.03, f"the {color} part"
    assert np.array_equal(world.rgba(looks.looked(design, Look())), before), "no look, no change"


def test_shading_is_kept():
    world, design = sprites.load(), usual("red apple")
    main = world.regions(design) == looks.MAIN
    luma = [world.rgba(s)[main][:, :3].mean(1) for s in (design, looks.looked(design, Look("blue")))]
    assert np.corrcoef(luma[0], luma[1])[0, 1] > 0.8


def test_patterns_differ_and_cover_about_half():
    drawn = {pattern: looks.marks(pattern) for pattern in looks.PATTERNS}
    assert all(0.25 < marks.mean() < 0.6 for marks in drawn.values())
    for a, b in product(looks.PATTERNS, repeat=2):
        assert (a == b) or (drawn[a] != drawn[b]).mean() > 0.3
    with pytest.raises(ValueError, match="no pattern 'plaid'"):
        looks.marks("plaid")


def test_near_misses_differ_in_the_part_they_name():
    for look in (FOX, Look("red"), Look("red", "blue"), Look("red", None, "rings", "white")):
        found = list(looks.near_misses(look, has_second=True))
        assert len({miss for _, miss in found}) == len(found) and look not in {miss for _, miss in found}
        for part, miss in found:
            changed = {name for name in looks.PARTS if getattr(miss, name) != getattr(look, name)}
            assert changed == {part} or (part == "pattern" and changed == {"pattern", "mark"})
        parts = {part for part, _ in found}
        assert {"main", "pattern"} <= parts and ("mark" in parts) == bool(look.pattern)


def test_a_fifth_of_the_combinations_is_held_out_whatever_the_rest_of_the_look():
    names = [concept.name for concept in sprites.load().concepts[:40]]
    held = [
        looks.held_out(name, Look(main, None, pattern, "white" if pattern else None))
        for name, main, pattern in product(names, looks.COLORS[:9], (None, *looks.PATTERNS))
    ]
    assert 0.15 < np.mean(held) < 0.25
    assert all(
        looks.held_out("fox", FOX) == looks.held_out("fox", Look("teal", second, "dots", mark))
        for second, mark in product((None, "red"), ("red", "pink"))
    )
    rng = scenes.rng_for("draw")
    assert not any(looks.held_out("fox", looks.draw(rng, "fox", True, held=False)) for _ in range(200))
    assert all(looks.held_out("fox", looks.draw(rng, "fox", True, held=True)) for _ in range(50))


def trained_on(scene: scenes.Scene) -> list[tuple[str, Look]]:
    return [(o.concept, Look.parse(o.look)) for o in scene.objects if o.look]


def test_no_training_shows_a_look_that_is_held_out_and_captions_say_the_others():
    worn = []
    for i in range(150):
        for scene in (scenes.portrait(i, looked=1.0), scenes.compose(i, looked=1.0, posed=0.5)):
            worn += trained_on(scene)
            assert all(o.phrase in scene.caption for o in scene.objects)
            assert all(Look.parse(o.look).describe(o.concept) in o.phrase for o in scene.objects if o.look)
    assert len(worn) > 250 and not any(looks.held_out(concept, look) for concept, look in worn)
    as_drawn = dataclasses.replace(IMAGE_TOWER, further=0.15, varied=0.05)
    ones = [single(f"k{i}", as_drawn) for i in range(60)]
    assert sum(one.look is not None for one in ones) > 20
    for one in ones:
        assert one.look is None or (not looks.held_out(one.name, one.look) and one.look.describe(one.name) in one.text)
    recipe = EncoderRecipe()
    for sprite in recipe.designs(scenes.rng_for("e")):
        design, look = looks.split_id(sprite)
        assert look is None or not looks.held_out(sprites.load().designs[design].concept, look)


def test_an_unsaid_look_is_there_and_no_colour_is_told():
    for i in range(40):
        told, untold = scenes.compose(i, looked=1.0, subjects=1), scenes.compose(i, looked=1.0, subjects=1, said=0.0)
        assert np.array_equal(told.image, untold.image)
        assert not set(untold.objects[0].phrase.split()) & set(PALETTE) - set(untold.objects[0].concept.split())


def test_further_pictures_of_a_caption_have_its_look():
    scene = next(s for s in (scenes.portrait(i, looked=1.0) for i in range(50)) if len(s.objects) == 1)
    look = Look.parse(scene.objects[0].look)
    color = np.array(PALETTE[look.main or look.mark], float)
    for image in [scene.image, *redraw(scene, "more", 3, posed=1.0)]:
        near = np.abs(image.astype(float) - color).sum(-1) < 120
        assert near.mean() > 0.02


def test_old_scenes_are_as_they_were():
    assert np.array_equal(scenes.compose(5).image, scenes.compose(5, looked=0.0).image)
    assert all(o.look is None for o in scenes.compose(5).objects)


def test_parts_are_labelled():
    assert part_labels(None) == [-100] * 4
    values = [of[i] for of, i in zip(PART_VALUES, part_labels(FOX), strict=True)]
    assert values == ["teal", "white", "dots", "yellow"]
    assert part_labels(Look("red")) == [1, 0, 0, 0]


def test_an_encoders_batch_has_look_alikes_as_other_subjects():
    recipe = EncoderRecipe()
    batch = recipe.designs(scenes.rng_for("batch"))
    assert len(batch) == len(set(batch)) == recipe.batch_size
    groups: dict[str, list[Look]] = {}
    for sprite in batch:
        design, look = looks.split_id(sprite)
        if look:
            groups.setdefault(design, []).append(look)
    assert len(groups) == round(recipe.config.looked * recipe.batch_size) // (1 + recipe.config.near)
    for first, *others in groups.values():
        misses = {miss for _, miss in looks.near_misses(first, True)}
        assert len(others) == recipe.config.near and set(others) <= misses
