"""The conditioning image tower learns beside the generator's frozen text encoder; a pipeline takes what it saves."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from transformers import AutoConfig, CLIPTextModel, ResNetConfig, ResNetModel
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from umm_bench.base import load_base
from umm_bench.errors import UserError
from umm_bench.mini import family, pretrain
from umm_bench.mini.recipes import tokenizer
from umm_bench.mini.recipes.clip import normalise
from umm_bench.mini.towers import FlatResNetModelWithProjection
from umm_bench.umm import TIUE, UMMPipeline
from umm_bench.umm_method import load_image_encoder, load_umm

SMALL = ["batch_size=4", "other_names=2", "stages=8,16", "blocks=1,1"]


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.delattr(tokenizer, "train")  # its tokens are the generator's: none are learnt
    return pretrain.make("image_encoder", options=SMALL)[0]


def test_it_learns_beside_the_generators_own_text_encoder_which_stays(recipe):
    theirs = CLIPTextModel.from_pretrained(family.path("sd") / "text_encoder", dtype=torch.float32)
    tokens = recipe.tokenize(["a fox", "an owl on a blue background"])
    before = {name: parameter.clone() for name, parameter in recipe.module.named_parameters()}
    with torch.no_grad():
        assert torch.allclose(recipe.clip.text_model(**tokens)[0], theirs(**tokens)[0], atol=1e-4)
    optimizer = torch.optim.AdamW([p for p in recipe.module.parameters() if p.requires_grad], lr=1e-3)
    recipe.loss(recipe.batch(0)).backward()
    optimizer.step()
    moved = {name for name, parameter in recipe.module.named_parameters() if not torch.equal(parameter, before[name])}
    assert not any("text_model" in name for name in moved)
    assert {"clip.visual_projection.weight", "clip.text_projection.weight", "prototypes.weight"} <= moved
    assert any("vision_model.embedder" in name for name in moved)


def test_what_it_saves_gives_the_same_embeddings_and_goes_on(recipe, tmp_path):
    recipe.clip.eval()
    recipe.save(tmp_path)
    saved = load_image_encoder(str(tmp_path)).eval()
    pixels = normalise(torch.randint(0, 255, (2, 64, 64, 3), dtype=torch.uint8).numpy())
    with torch.no_grad():
        ours, theirs = recipe.clip.get_image_features(pixel_values=pixels).pooler_output, saved(pixels).image_embeds
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert AutoConfig.from_pretrained(tmp_path).projection_dim == theirs.shape[1] == 192
    assert AutoImageProcessor.from_pretrained(tmp_path, backend="pil").crop_size["height"] == 64
    again = pretrain.make("image_encoder", options=[*SMALL, "seed=9"])[0]
    again.load(tmp_path)
    assert all(torch.equal(t, again.clip.state_dict()[n]) for n, t in saved.state_dict().items())


def test_a_pipeline_is_saved_and_loaded_with_it(recipe, tmp_path, caplog):
    recipe.save(tmp_path / "tower")
    pipe = load_umm(load_base("mini"), None, str(tmp_path / "tower"))
    text_dim = pipe.text_encoder.config.hidden_size
    pipe = UMMPipeline.from_pipe(
        pipe, image_encoder=pipe.image_encoder, feature_extractor=pipe.feature_extractor, tiue=TIUE(192, text_dim)
    )
    pipe.save_pretrained(tmp_path / "umm")
    loaded = UMMPipeline.from_pretrained(tmp_path / "umm", dtype=torch.float32)
    assert isinstance(loaded.image_encoder, FlatResNetModelWithProjection) and "Expected types" not in caplog.text
    picture = Image.effect_mandelbrot((64, 64), (-2, -1.5, 1, 1.5), 50).convert("RGB")
    assert torch.equal(loaded.embed_images([picture]), pipe.embed_images([picture]))


def test_a_model_of_another_kind_is_refused(tmp_path):
    ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic")).save_pretrained(
        tmp_path
    )
    with pytest.raises(UserError, match="it holds a resnet, not a CLIP"):
        load_image_encoder(str(tmp_path))
    with pytest.raises(UserError, match=r"cannot load the image encoder from .*missing"):
        load_image_encoder(str(tmp_path / "missing"))
