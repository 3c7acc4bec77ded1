"""Pictures painted a batch at a time are the composer's, but for resampling."""

import numpy as np
import pytest
import torch

from umm_bench.mini.recipes import painted
from umm_bench.mini.recipes.singles import training_names
from umm_bench.mini.world import looks, scenes, sprites
from umm_bench.mini.world.looks import Look


@pytest.fixture(scope="module")
def few() -> painted.Atlas:
    """A drawing of each of 24 concepts."""
    world = sprites.load()
    return painted.make_atlas([world.members(name, "train")[0].id for name in training_names()[:24]])


def _decibels(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return -10 * np.log10(np.square(a - b).mean((1, 2, 3)) / 255**2)


def test_painting_is_that_of_the_world(few):
    world, rng = sprites.load(), np.random.default_rng(0)
    worn = [looks.draw(rng, world.designs[i].concept, world.has_second(i)) for i in few.ids]
    worn[:2] = [Look(), Look(None, None, "dots", "teal")]
    made = painted.paint(few, range(len(few.ids)), worn)
    for picture, drawing, look in zip(made, few.ids, worn, strict=True):
        true = world.rgba(looks.looked(drawing, look)).astype(np.float32)
        opacity = true[..., 3:] / 255
        assert np.abs(picture[:3].permute(1, 2, 0).numpy() - true[..., :3] * opacity).max() <= 1.5
        assert np.allclose(picture[3].numpy(), opacity[..., 0])


def test_a_pose_is_the_composers(few):
    rng, count = np.random.default_rng(1), len(few.ids)
    places = [scenes.random_placement(rng, *rng.uniform(0.4, 0.6, 2), rng.uniform(0.45, 0.95)) for _ in few.ids]
    assert any(at.mirror for at in places) and any(abs(at.angle) > 5 for at in places)
    plain = painted.paint(few, range(count), [Look()] * count)
    made = painted.put(plain, torch.full((count, 3, 64, 64), 120.0), places).permute(0, 2, 3, 1).numpy()
    true = np.full((count, 64, 64, 3), 120, np.float32)
    for canvas, drawing, at in zip(true, few.ids, places, strict=True):
        scenes.paste(canvas, drawing, at)
    near = _decibels(made, true.clip(0, 255))
    far = _decibels(made[:, :, ::-1], true.clip(0, 255))  # the mirror image, as a measure of what a mistake costs
    assert near.min() > 22 and np.median(near) > 28
    assert (near > far).mean() > 0.9


def test_singles_are_a_function_of_their_key_and_hold_out(few, monkeypatch):
    world = sprites.load()
    monkeypatch.setattr(painted, "atlas", lambda: few)
    names = [world.designs[i].concept for i in few.ids]
    monkeypatch.setattr(painted, "training_names", lambda: names)
    monkeypatch.setattr(sprites.Sprites, "members", lambda self, name, split=None: (
        self.designs[few.ids[names.index(name)]],
    ))  # fmt: skip
    monkeypatch.setattr(painted, "BACKGROUNDS", 16)
    painted.grounds.cache_clear()
    made, again = (painted.singles("k", 64, 64, looked=0.8, near=2) for _ in range(2))
    painted.grounds.cache_clear()
    assert all(np.array_equal(a.image, b.image) and a.text == b.text for a, b in zip(made, again, strict=True))
    worn = [one for one in made if one.look]
    assert 30 < len(worn) < 64
    for one in worn:
        assert not looks.held_out(one.name, one.look)
        assert one.text == scenes.article(one.look.describe(one.name)) and len(one.near_misses) == 2
        assert one.text not in one.near_misses
    assert made[0].image.shape == (64, 64, 3) and made[0].image.dtype == np.uint8
