"""What the CLIP and encoder recipes save is what the metrics and the miner load: same features, unit length."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from curation.vision.clip import ClipScorer
from umm_bench.errors import UserError
from umm_bench.metrics.embedding import ClipEncoder, VisionEncoder
from umm_bench.mini import family
from umm_bench.mini.recipes import tokenizer
from umm_bench.mini.recipes.clip import (
    CONDITIONING,
    SCORING,
    ConditioningCLIP,
    ScoringCLIP,
    normalise,
)
from umm_bench.mini.recipes.encoder import EncoderConfig, EncoderRecipe
from umm_bench.mini.recipes.singles import single, varied
from umm_bench.mini.world import scenes, sprites

TEXTS = ["a red fox on the beach", "an owl"]


@pytest.fixture(scope="module")
def pictures():
    return np.stack([scenes.compose(f"towers-{i}").image for i in range(3)])


@pytest.fixture
def files(pictures, tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(picture).save(path)
    return paths


@pytest.fixture(autouse=True)
def shipped_tokenizer(monkeypatch):
    shipped = CLIPTokenizer.from_pretrained(family.path("sd") / "tokenizer")  # learning it anew takes a while
    monkeypatch.setattr(tokenizer, "train", lambda: shipped)


@pytest.mark.parametrize("recipe_class", [ScoringCLIP, ConditioningCLIP])
def test_clips(recipe_class, pictures, files, tmp_path):
    recipe = recipe_class()
    recipe.save(tmp_path / "clip")
    recipe.module.eval()
    with torch.no_grad():
        images = recipe.clip.get_image_features(pixel_values=normalise(pictures)).pooler_output
        texts = recipe.text(dict(recipe.tokenizer(TEXTS, padding=True, return_tensors="pt")))
    metric, miner = ClipEncoder(str(tmp_path / "clip"), "scoring_clip"), ClipScorer.load(str(tmp_path / "clip"), "cpu")
    expected = F.normalize(images, dim=-1).numpy()
    assert metric.images(files) == pytest.approx(expected, abs=1e-5)
    assert miner.embed([Image.fromarray(p) for p in pictures]) == pytest.approx(expected, abs=1e-5)
    assert metric.texts(TEXTS) == pytest.approx(texts.numpy(), abs=1e-5)
    cosines = (expected[:2] * texts.numpy()).sum(-1)
    assert miner.score([Image.fromarray(p) for p in pictures[:2]], TEXTS) == pytest.approx(cosines, abs=1e-5)
    assert metric.is_truncated("owl " * 40) and not metric.is_truncated("owl")


@pytest.mark.parametrize(
    "load",
    [
        "from curation.vision.clip import ClipScorer; ClipScorer.load({folder!r}, 'cpu')",
        "from umm_bench.metrics.embedding import ClipEncoder; ClipEncoder({folder!r}, 'scoring_clip').model",
    ],
)
def test_a_process_that_trains_nothing_knows_the_image_tower(load, tmp_path):
    ScoringCLIP().save(tmp_path)
    subprocess.run([sys.executable, "-c", load.format(folder=str(tmp_path))], check=True)


def test_the_encoder(pictures, files, tmp_path):
    recipe = EncoderRecipe()
    recipe.save(tmp_path / "encoder")
    with torch.no_grad():
        pooled = recipe.encoder.eval()(normalise(pictures)).pooler_output.flatten(1)
    found = VisionEncoder(str(tmp_path / "encoder"), "encoder").images(files)
    assert found == pytest.approx(F.normalize(pooled, dim=-1).numpy(), abs=1e-5)
    assert found.shape == (3, recipe.config.stages[-1])
    again = EncoderRecipe(EncoderConfig(seed=9))
    again.load(tmp_path / "encoder")
    assert all(torch.equal(a, b) for a, b in zip(again.encoder.parameters(), recipe.encoder.parameters(), strict=True))


def test_a_vision_transformer_is_its_cls_token(files, tiny_image_encoder, tmp_path):
    for part in tiny_image_encoder:
        part.save_pretrained(tmp_path / "vit")
    metric = VisionEncoder(str(tmp_path / "vit"), "encoder")
    pixels = metric.processor([Image.open(path) for path in files], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        states = metric.model(pixel_values=pixels).last_hidden_state
    assert metric.images(files) == pytest.approx(F.normalize(states[:, 0], dim=-1).numpy(), abs=1e-5)


def test_a_part_of_a_batch_are_whole_concepts():
    recipe, world = EncoderRecipe(), sprites.load()
    batch = recipe.designs(scenes.rng_for("towers"))
    assert len(set(batch)) == len(batch) == recipe.batch_size
    chosen = [world.designs[name] for name in batch if "#" not in name]
    assert len({d.identity for d in chosen}) == len(chosen)
    assert {d.split for d in chosen} == {"train"}
    whole = chosen[: round(recipe.config.whole_concepts * recipe.batch_size)]
    assert len({d.concept for d in whole}) < len(whole) / 3
    for concept in {d.concept for d in whole} - {whole[-1].concept}:  # the last one may be cut
        identities = {d.identity for d in world.members(concept, "train")}
        assert identities == {d.identity for d in whole if d.concept == concept}


def test_weights_of_another_kind_are_refused(tmp_path):
    ConditioningCLIP().save(tmp_path)
    with pytest.raises(UserError, match="holds a clip, this recipe trains a vision-text-dual-encoder"):
        ScoringCLIP().load(tmp_path)
    with pytest.raises(UserError, match="holds a clip, this recipe trains a resnet"):
        EncoderRecipe().load(tmp_path)


def test_weights_of_other_sizes_are_refused(tmp_path):
    EncoderRecipe(EncoderConfig(blocks=(1, 1, 1, 2))).save(tmp_path)
    with pytest.raises(UserError, match="a resnet of other sizes"):
        EncoderRecipe().load(tmp_path)


def test_an_encoder_without_a_text_tower_is_no_clip(tmp_path):
    EncoderRecipe().save(tmp_path)
    with pytest.raises(UserError, match="no text tower"):
        _ = ClipEncoder(str(tmp_path), "scoring_clip").model


def test_a_step_of_the_clip_has_each_text_once():
    recipe = ScoringCLIP(dataclasses.replace(SCORING, batch_size=24, other_names=10))
    batch = recipe.batch(3)

    def spoken(text):
        return recipe.tokenizer.decode(recipe.tokenizer(text)["input_ids"], skip_special_tokens=True)

    names, captions = (recipe.tokenizer.batch_decode(t["input_ids"], skip_special_tokens=True) for t in batch["texts"])
    ones = [single(f"scoring_clip-2-3-{i}", recipe.config) for i in range(18)]
    misses = {spoken(miss) for one in ones for miss in one.near_misses}
    assert misses and misses <= set(captions), "a picture in a look is told from near misses"
    assert len({*names, *captions}) == len(names) + len(captions) <= 24 + 10 + len(misses)
    own = [[*names, *captions][i] for i in batch["truth"]]
    assert names == [spoken(scenes.article(recipe.names[i])) for i in batch["named"]]
    assert own[:18] == [spoken(one.text) for one in ones]
    assert [recipe.names[i] for i in batch["concepts"]] == [one.name for one in ones]
    assert all((row < len(names)) == (one.look is None) for row, one in zip(batch["truth"], ones, strict=False))
    half = recipe.config.looked / 2
    composed = [scenes.compose(f"scoring_clip-2-3-{i}", looked=half, said=0.8) for i in range(18, 24)]
    assert own[18:] == [spoken(scene.caption) for scene in composed]


def test_the_order_of_a_batch_does_not_change_the_clip_s_loss():
    recipe = ConditioningCLIP(dataclasses.replace(CONDITIONING, batch_size=16, even_share=0.5))
    batch = recipe.batch(0)
    batch["truth"][1] = batch["truth"][0]  # two images of one text
    order = torch.arange(16).flip(0)
    turned = batch | {"pixel_values": batch["pixel_values"][order], "truth": batch["truth"][order]}
    with torch.no_grad():
        assert recipe.loss(turned).item() == pytest.approx(recipe.loss(batch).item(), abs=1e-4)
        wrong = batch | {"truth": batch["truth"].roll(5)}
        assert abs(recipe.loss(wrong).item() - recipe.loss(batch).item()) > 1e-3


def test_the_prototypes_that_teach_the_clip_are_not_shipped_and_begin_at_the_names(tmp_path):
    recipe = ScoringCLIP()
    recipe.loss(recipe.batch(0)).backward()
    assert (recipe.prototypes.weight.grad.norm(dim=1) > 0).all()
    recipe.save(tmp_path)
    assert not [name for name in load_file(tmp_path / "model.safetensors") if "prototypes" in name]
    again = ScoringCLIP()
    again.load(tmp_path)
    names = recipe.text(recipe.tokenize([scenes.article(name) for name in recipe.names]))
    assert torch.allclose(again.prototypes.weight, names, atol=1e-4)


def test_drawings_of_another_hand_differ_in_shape_and_look_and_belong_to_their_key():
    canvas = np.zeros((64, 64, 3), np.float32)
    canvas[20:44, 20:44] = (200, 60, 20)
    images = [varied(canvas, scenes.rng_for("varied", i)) for i in range(200)]
    assert all(i.shape == canvas.shape and i.dtype == np.float32 and i.min() >= 0 and i.max() <= 255 for i in images)
    assert np.array_equal(images[0], varied(canvas, scenes.rng_for("varied", 0)))
    gray = np.mean([np.ptp(image, axis=2).max() < 1 for image in images])
    assert 0.1 < gray < 0.3, "edges and grey, less those with a coloured hole"
    assert 0.05 < np.mean([image[0, 0, 0] > 200 for image in images]) < 0.4, "negatives and white paper"
    areas = [int((image[..., 0] - image[..., 2] > 100).sum()) for image in images]
    assert np.ptp([a for a in areas if a]) > 200, "stretched and sheared"


def test_a_single_sprite_is_varied_as_often_as_asked():
    plain, half, all_of_them = (
        [single(f"k{i}", dataclasses.replace(SCORING, varied=share, recolor=0.0, looked=0.0)) for i in range(40)]
        for share in (0.0, 0.5, 1.0)
    )
    assert [o.name for o in plain] == [o.name for o in half] == [o.name for o in all_of_them]

    def same(other):
        return np.mean([np.array_equal(a.image, b.image) for a, b in zip(plain, other, strict=True)])

    assert 0.2 < same(half) < 0.8 and same(all_of_them) == 0
