"""Both sides of `benchmarks.training` do the same work; `benchmarks.augmentation` measures what it says."""

import dataclasses
import itertools
from copy import deepcopy

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import augmentation, training
from tests.umm.conftest import make_umm, picture
from umm_bench.umm.settings import TrainConfig

CONFIG = TrainConfig(steps=3, batch_size=2, hidden_dim=16, learning_rate=1e-2, warmup_steps=1, drop_rate=0.3)


@pytest.mark.parametrize(
    ("frozen", "placement"), [(False, "replace"), (True, "replace"), (True, "add"), (True, "before")]
)
def test_the_plain_recipe_trains_the_same_mlp(fresh_sd, tiny_image_encoder, tmp_path, frozen, placement):
    config = dataclasses.replace(CONFIG, placement=placement)

    def stack():
        return make_umm(fresh_sd("v_prediction"), deepcopy(tiny_image_encoder))

    pairs, pipe = training.make_pairs(4, 32), stack()
    for ours, plain in itertools.zip_longest(
        training.ours(stack(), pairs, config, tmp_path), training.plain(pipe, pairs, config, frozen)
    ):
        assert plain.loss == pytest.approx(ours.loss, rel=1e-4)
        assert plain.grad_norm == pytest.approx(ours.grad_norm, rel=1e-3)
    for (name, mine), theirs in zip(ours.tiue.named_parameters(), plain.tiue.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-4), name
    kept = all(parameter.grad is not None for parameter in pipe.unet.parameters())
    assert kept is not frozen


def leakage(drawn, text_only, reference):
    """Of one subject."""
    distances = [[augmentation.frame_distances(p, reference).mean()] for p in (drawn, text_only)]
    nothing = np.zeros(1)
    return augmentation.Measured(nothing, nothing, *map(np.array, distances)).summary(np.arange(1))["leakage"]


def test_leakage_is_the_share_of_the_way_to_the_reference():
    text_only, reference = [picture(0), picture(1)], picture(2)
    half = [Image.blend(a, reference, 0.5) for a in text_only]
    shares = [leakage(drawn, text_only, reference) for drawn in (text_only, half, [reference] * 2)]
    assert shares == pytest.approx([0, 0.5, 1], abs=0.02)


def test_leakage_looks_at_the_frame_only():
    background, subject = Image.new("RGB", (64, 64), "blue"), Image.new("RGB", (64, 64), "blue")
    subject.paste("red", (16, 16, 48, 48))
    assert leakage([subject], [background], Image.new("RGB", (64, 64), "green")) == 0


def test_an_augmentations_effect_is_the_paired_difference_over_subjects():
    def measured(identity):
        ones = np.ones(len(identity))
        return augmentation.Measured(np.array(identity), ones, ones, 2 * ones)

    whole, without = measured([0.1, 0.9, 0.5]), measured([0.2, 1.0, 0.6])  # 0.1 more of each subject
    alone, same = (next(iter(augmentation.report("without_flip", without, other))) for other in (None, whole))
    assert same.name == "augmentation.without_flip.identity" and same.value == pytest.approx(0.6) and not alone.note
    assert same.note == "+0.100 against all, 95% 0.100 to 0.100"


def test_scene_pairs_name_what_their_crop_shows():
    for pair in augmentation.scene_pairs(5):
        phrase = pair.caption[pair.start : pair.end]
        assert pair.noun in phrase
        assert 0 <= pair.box[0] < pair.box[2] <= 1
    again = [pair.digest for pair in augmentation.scene_pairs(3)]
    assert again == [pair.digest for pair in augmentation.scene_pairs(3)] and len(set(again)) == 3


def test_each_variant_switches_one_augmentation():
    full = np.array(list(vars(augmentation.VARIANTS["all"]).values()))
    off = {name: np.array(list(vars(variant).values())) == 0 for name, variant in augmentation.VARIANTS.items()}
    assert not off["all"].any() and off["none"].all() and (full > 0).all()
    singles = [off[name] for name in augmentation.VARIANTS if name.startswith("without_")]
    assert np.array_equal(np.sum(singles, axis=0), np.ones(len(full)))
