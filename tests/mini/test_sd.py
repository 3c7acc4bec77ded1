"""The generator's recipe: what it goes on from, what it learns towards."""

import dataclasses
import shutil
from types import SimpleNamespace

import pytest
import torch

from umm_bench.errors import UserError
from umm_bench.mini import family
from umm_bench.mini.recipes import sd_data
from umm_bench.mini.recipes.clip import ConditioningCLIP
from umm_bench.mini.recipes.sd import SDConfig, SDRecipe, expected


def test_a_generator_goes_on_from_saved_weights_and_refuses_those_of_other_sizes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = SDConfig(captions=8, draws=3, chunk=8, batch_size=2, channels=(16, 32))
    recipe, again = SDRecipe(small), SDRecipe(small)
    with torch.no_grad():
        recipe.unet.conv_in.weight.add_(1.0)
        recipe.text_encoder.get_input_embeddings().weight.add_(1.0)
    recipe.save(tmp_path / "sd")
    again.load(tmp_path / "sd")
    pairs = zip(again.module.parameters(), recipe.module.parameters(), strict=True)
    assert all(torch.equal(loaded, saved) for loaded, saved in pairs)
    assert again.config == recipe.config and again.config.cache.is_dir()
    with torch.no_grad():
        again.vae.encoder.conv_in.weight.mul_(2)
    again.vae.save_pretrained(tmp_path / "runs" / "mini" / "vae" / "model")
    with pytest.raises(UserError, match="train both vae and clip"):
        SDRecipe(small)
    ConditioningCLIP().save(tmp_path / "runs" / "mini" / "clip" / "model")
    other = SDRecipe(small)  # another VAE and another CLIP: other latents, and no checkpoint of theirs
    assert other.config.cache != recipe.config.cache and other.config.vocabulary != recipe.config.vocabulary
    assert not torch.equal(other.latents, recipe.latents)
    words = [r.text_encoder.get_input_embeddings().weight for r in (other, again)]
    assert words[0].shape != words[1].shape or not torch.equal(*words)
    shutil.rmtree(tmp_path / "runs")
    for other_scenes in ({"posed": 0.0}, {"plain": 0.0}):
        loose = SDRecipe(dataclasses.replace(small, **other_scenes))
        assert loose.config.cache != again.config.cache and not torch.equal(loose.latents, again.latents)
    part = SDRecipe(dataclasses.replace(small, captions=10))  # no whole number of chunks
    assert len(part.tokens) - 1 == len(part.latents) == 10
    last = sorted(part.config.cache.iterdir())[-1]
    last.unlink()
    assert torch.equal(SDRecipe(part.config).latents, part.latents)  # a chunk made alone is the same chunk
    with pytest.raises(UserError, match="of other sizes"):
        SDRecipe(dataclasses.replace(small, channels=(16, 48))).load(tmp_path / "sd")
    shutil.copytree(family.path("scoring_clip"), tmp_path / "sd" / "tokenizer", dirs_exist_ok=True)
    with pytest.raises(UserError, match="reads other tokens"):
        again.load(tmp_path / "sd")


def test_the_mean_of_the_pictures_that_a_noisy_one_can_be_of():
    """Against the posterior of a mixture written out; no noise leaves the picture, only noise the plain mean."""
    clean = torch.randn(4, 5, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    alpha, sigma = torch.tensor([1.0, 0.6, 0.2, 0.0]), torch.tensor([0.01, 0.8, 0.98, 1.0])
    noisy = alpha[:, None, None, None] * clean[:, 0] + sigma[:, None, None, None] * noise
    mean = expected(noisy, clean, alpha, sigma)
    for i in range(4):
        normal = torch.distributions.Normal(alpha[i].double() * clean[i].double(), sigma[i].double())
        density = normal.log_prob(noisy[i].double()).sum((1, 2, 3)).softmax(0)
        torch.testing.assert_close(mean[i], torch.einsum("k,kchw->chw", density, clean[i].double()).float())
    torch.testing.assert_close(mean[0], clean[0, 0])
    torch.testing.assert_close(mean[3], clean[3].mean(0))


def test_a_generators_target_is_the_velocity_towards_that_mean(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = SDRecipe(SDConfig(captions=8, draws=3, chunk=8, batch_size=4, channels=(16, 32)))
    batch = recipe.batch(0)
    pictures = recipe.pictures(batch)
    assert pictures.shape[:2] == (4, 3) and not torch.equal(recipe.pictures(recipe.batch(1)), pictures)
    assert torch.equal(pictures[0, 0], recipe.latents[batch["rows"][0], batch["order"][0, 0]].float() * recipe.scale)
    seen = {}
    monkeypatch.setattr(recipe, "timesteps", lambda n: torch.full((n,), 999))
    monkeypatch.setattr(recipe.unet, "forward", lambda x, t, h: SimpleNamespace(sample=seen.setdefault("v", wanted)))
    wanted = -pictures.mean(1)  # pure noise: the velocity is away from the mean of the caption's pictures
    assert recipe.loss(batch) < 1e-9
    one = {**batch, "order": batch["order"][:, :1]}
    assert recipe.loss(one) > 0.01  # a single picture is not that mean


def test_captions_drawn_by_several_processes_are_the_same(tmp_path, monkeypatch):
    config = SDConfig(captions=12, draws=2, chunk=8, batch_size=2, channels=(16, 32))
    drawn = []
    for few in (12, 11):
        monkeypatch.setattr(sd_data, "FEW", few)
        (tmp_path / str(few)).mkdir()
        monkeypatch.chdir(tmp_path / str(few))
        drawn.append(SDRecipe(config))
    alone, together = drawn
    assert torch.equal(alone.latents, together.latents) and alone.counts == together.counts
    assert torch.equal(alone.tokens, together.tokens) and len(alone.tokens) == 13


def test_words_scale_and_shift_every_block(tmp_path, monkeypatch):
    """Without cross-attention the text still reaches the picture, and its first block."""
    monkeypatch.chdir(tmp_path)
    unet = SDRecipe(SDConfig(captions=2, draws=1, chunk=2, batch_size=1, channels=(16, 32))).unet.eval()
    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            monkeypatch.setattr(module, "forward", lambda x, *_, **__: torch.zeros_like(x))
    seen = []
    unet.down_blocks[0].register_forward_hook(lambda _, __, out: seen.append(out[0]))
    x, words = torch.randn(1, 8, 16, 16), torch.randn(2, 1, 5, 192)
    with torch.no_grad():
        first, second = (unet(x, 500, h).sample for h in words)
    assert not torch.allclose(first, second) and not torch.allclose(*seen)
