"""The composer: same key, same scene; what the caption and the boxes say is what is in the picture."""

import numpy as np
import pytest

from umm_bench.mini.world import backgrounds, scenes, sprites
from umm_bench.mini.world.colors import dominant_colors
from umm_bench.mini.world.redraw import redraw


def test_a_scene_is_a_function_of_its_key():
    first, again, other = scenes.compose("k"), scenes.compose("k"), scenes.compose("k2")
    assert np.array_equal(first.image, again.image) and first.caption == again.caption
    assert not np.array_equal(first.image, other.image)


def test_the_caption_names_every_object_and_boxes_lie_inside():
    for key in range(200):
        scene = scenes.compose(key)
        for thing in scene.objects:
            assert thing.phrase in scene.caption
            assert thing.concept in thing.phrase
            x0, y0, x1, y1 = thing.box
            assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1


def test_posing_centres_what_is_large_and_leaves_small_what_is_called_small():
    posed, small = 0, 0
    for key in range(200):
        scene, casual = (scenes.compose(key, posed=share, subjects=1) for share in (1.0, 0.0))
        sides = [max(x1 - x0, y1 - y0) for x0, y0, x1, y1 in (scene.objects[0].box, casual.objects[0].box)]
        if set(scene.caption.split()) & {"small", "tiny"}:
            small += 1
            assert sides[0] <= 0.5
        elif sides[1] > 0.5:
            posed += 1
            x0, y0, x1, y1 = scene.objects[0].box
            assert sides[0] > 0.5 and abs((x0 + x1) / 2 - 0.5) < 0.15 and abs((y0 + y1) / 2 - 0.5) < 0.15
    assert posed > 50 and small > 5


def test_posing_several_keeps_their_places_and_stands_them_upright():
    turned = 0
    for key in range(40):
        scene, casual = (scenes.compose(key, posed=share, subjects=2) for share in (1.0, 0.0))
        for one, other in zip(scene.objects, casual.objects, strict=True):
            assert one.concept == other.concept
            assert np.abs(np.add(one.box[:2], one.box[2:]) - np.add(other.box[:2], other.box[2:])).max() < 0.3
        turned += not np.array_equal(scene.image, casual.image)
    assert turned > 20


def test_posed_scenes_mostly_have_the_usual_design_and_others_any():
    def share_usual(posed):
        things = [o for i in range(300) for o in scenes.compose(i, posed=posed).objects if o.design]
        return np.mean([o.design == scenes.usual(o.concept).id for o in things])

    even = np.mean([1 / len(sprites.load().members(scenes.compose(i).objects[0].concept, "train")) for i in range(300)])
    assert abs(share_usual(0.0) - even) < 0.08
    assert abs(share_usual(1.0) - (scenes.USUAL + (1 - scenes.USUAL) * even)) < 0.08


def test_a_box_holds_what_was_drawn():
    canvas = np.zeros((64, 64, 3), np.float32)
    box = scenes.paste(canvas, "dog/noto", scenes.Placement(0.4, 0.5, 0.5))
    rows, cols = np.nonzero(canvas.sum(2) > 60)
    seen = np.array([cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]) / 64
    assert np.abs(seen - np.array(box)).max() <= 2 / 64


def test_training_draws_nothing_that_is_held_out():
    world = sprites.load()
    for key in range(300):
        for thing in scenes.compose(f"held-{key}").objects:
            assert world.by_name[thing.concept].split == "train"
            assert not thing.design or world.designs[thing.design].split == "train"


def test_frequency_falls_with_rank():
    rng = np.random.default_rng(0)
    world = sprites.load()
    ranks = np.array([world.by_name[scenes.draw_design(rng).concept].rank for _ in range(4000)])
    head, middle = (ranks < 30).mean(), ((ranks >= 30) & (ranks < 60)).mean()
    expected = sum(c.weight for c in world.concepts[:30])
    assert abs(head - expected) < 0.03
    assert head > 3 * middle


def test_a_held_out_designer_leaves_with_all_renderings():
    world = sprites.load()
    for concept in world.concepts:
        fluent = {d.split for d in world.members(concept.name) if d.style.startswith("fluent")}
        assert len(fluent) <= 1


@pytest.mark.parametrize("color", ["red", "blue", "white", "black"])
def test_a_colour_is_called_by_its_name(color):
    rgba = np.dstack([backgrounds.draw(color, scenes.rng_for("c"), 16), np.full((16, 16), 255.0)]).astype(np.uint8)
    assert dominant_colors(rgba)[0] == color


def test_every_background_can_be_drawn_and_unknown_ones_are_refused():
    for name in backgrounds.every_name():
        assert backgrounds.draw(name, scenes.rng_for(name), 32).shape == (32, 32, 3)
    with pytest.raises((KeyError, ValueError)):
        backgrounds.draw("no such place", scenes.rng_for("x"), 32)


def test_redrawn_pictures_are_such_as_the_caption_describes(monkeypatch):
    pasted = []
    paste = scenes.paste
    monkeypatch.setattr(scenes, "paste", lambda canvas, d, at: (pasted.append((d, at)), paste(canvas, d, at))[1])
    world, styles = sprites.load(), {word: s for s, words in scenes.STYLE_WORDS.items() for word in words}
    for i in range(60):
        scene = scenes.compose(i, posed=0.5)
        pasted.clear()
        images = redraw(scene, i, 4, posed=0.5)
        assert images.shape == (4, 64, 64, 3) and not np.array_equal(images[0], images[1])
        assert np.array_equal(images, redraw(scene, i, 4, posed=0.5))
        drawn = [pasted[j : j + len(scene.objects)] for j in range(0, 4 * len(scene.objects), len(scene.objects))]
        for sprites_of in drawn:
            for thing, (design_id, at) in zip(scene.objects, sprites_of, strict=True):
                design = world.designs[design_id]
                assert design.concept == thing.concept and design.split == "train"
                if not thing.design:
                    continue
                words = thing.phrase.removesuffix(thing.concept).split()[thing.phrase.startswith(("a ", "an ")) :]
                size = next(names for limit, names in scenes.SIZE_WORDS if at.scale <= limit)
                rest = " ".join(words[1:] if words and words[0] in size else words)
                said = next((w for w in sorted(styles, key=len, reverse=True) if rest.startswith(w)), "")
                assert not said or styles[said] == design.style
                colors = rest.removeprefix(said).strip()
                assert colors in ("", at.recolor, " and ".join(design.colors))
                assert at.recolor in (None, colors)
            if scene.relation in ("left of", "right of"):
                (_, first), (_, second) = sprites_of
                assert (first.x < second.x) == (scene.relation == "left of")


def test_a_portrait_names_one_concept_or_two_and_a_background_and_no_more():
    kinds, counts = set(), []
    for key in range(80):
        scene = scenes.portrait(key)
        assert np.array_equal(scene.image, scenes.portrait(key).image)
        named = " and ".join(scenes.article(thing.concept) for thing in scene.objects)
        assert any(scene.caption == opening.format(f"{named} {scene.background.phrase}") for opening in scenes.OPENINGS)
        assert all(thing.design == scenes.usual(thing.concept).id for thing in scene.objects)
        kinds.add(scene.background.kind)
        counts.append(len(scene.objects))
    assert kinds == {"plain", "drawn"} and set(counts) == {1, 2} and counts.count(1) > counts.count(2)
