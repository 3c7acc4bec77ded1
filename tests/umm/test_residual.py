"""A residual pseudo word is added to the subject's own words, which go on saying what the subject is."""

import dataclasses
from copy import deepcopy

import pytest
import torch
from torch import nn

from tests.umm.conftest import make_tiue, make_umm, picture
from tests.umm.test_composition import far
from tests.umm.test_pipeline import PROMPT, draw
from tests.umm.test_trainer import CONFIG, ENCODE
from umm_bench.errors import UserError
from umm_bench.umm import Subject, UMMPipeline, load_card, load_tiue, place_words
from umm_bench.umm.checkpoint import load_state, run_identity, save_state
from umm_bench.umm.encoded import EncodedPairs, encode_pairs
from umm_bench.umm.pairs import read_pairs
from umm_bench.umm.trainer import denoising_loss, initial_state, noise_schedule, train, umm_loss
from umm_bench.umm.trainer import draw as draws_of

RESIDUAL = dataclasses.replace(CONFIG, residual=True)


def trained(tiue):
    """As training leaves it: the last layer no longer zero."""
    nn.init.normal_(tiue.mlp[-2].weight, generator=torch.Generator().manual_seed(0))
    return tiue


@pytest.fixture(scope="module")
def residual(tiny_sd, tiny_image_encoder):
    pipe = make_umm(tiny_sd, tiny_image_encoder, residual=True)
    trained(pipe.tiue)
    return pipe


@pytest.fixture
def encoded(umm, pairs_folder, tmp_path):
    return EncodedPairs(list(encode_pairs(umm, read_pairs(pairs_folder()), tmp_path / "cache", ENCODE)))


@pytest.mark.parametrize(
    ("prompt", "phrase"),
    [
        ("a dog on snow", "dog"),
        ("a Small  red dog on snow", "small red dog"),
        ("a dog in the style of <image>, on snow", "<image>"),  # ">," is one token
    ],
)
def test_untrained_it_changes_nothing(tiny_sd, tiny_image_encoder, prompt, phrase):
    pipe = make_umm(tiny_sd, tiny_image_encoder, residual=True)
    plain = draw(pipe, prompt)
    assert far(draw(pipe, prompt, subjects=Subject(picture(5), phrase), alpha=1.0), plain) < 1e-4
    trained(pipe.tiue)
    assert far(draw(pipe, prompt, subjects=Subject(picture(5), phrase), alpha=1.0), plain) > 1e-3


def test_a_name_of_several_tokens_is_moved_as_far_as_one_of_one():
    words_BKD = torch.tensor([[[6.0, 3.0]]]).expand(2, -1, -1)
    mask_BL = torch.tensor([[False, True, False, False], [False, True, True, True]])
    placed_BLD = place_words(words_BKD, mask_BL, residual=True)
    assert placed_BLD.sum(dim=1).tolist() == [[6, 3], [6, 3]]
    assert placed_BLD[1].tolist() == [[0, 0], [2, 1], [2, 1], [2, 1]]


def test_the_hidden_states_are_those_of_the_sum(residual):
    embeddings = residual.text_encoder.get_input_embeddings()
    ids_BL = residual.tokenizer(PROMPT, padding="max_length", return_tensors="pt").input_ids
    h_y = residual.text_encoder(ids_BL)[0]
    subject = Subject(picture(5), "small dog")
    h_u = residual.encode_subject_prompt([PROMPT], h_y, [subject], [frozenset({0})])[frozenset({0})]
    moved_BLD = embeddings(ids_BL).detach()
    moved_BLD[:, 2:4] += residual.encode_subjects([subject])[0] / 2
    hook = embeddings.register_forward_hook(lambda module, args, out: moved_BLD)
    expected = residual.text_encoder(ids_BL)[0]
    hook.remove()
    assert torch.allclose(h_u[:, 2:4], expected[:, 2:4], atol=1e-5)
    assert (h_u != h_y).any(dim=-1)[0].nonzero().flatten().tolist() == [2, 3]


def test_a_card_is_as_its_pictures_whatever_it_is_called(residual, tiny_sd, tmp_path):
    bare = UMMPipeline.from_pipe(tiny_sd)
    bare.set_progress_bar_config(disable=True)
    residual.make_card(picture(5), "dog").save(tmp_path / "dog.safetensors")
    card = load_card(tmp_path / "dog.safetensors")
    assert card.residual
    for phrase in ("dog", "small dog"):
        expected = draw(residual, subjects=Subject(picture(5), phrase))
        assert far(draw(bare, subjects=Subject(card=card, phrase=phrase)), expected) < 1e-4


def test_words_that_replace_and_words_that_are_added_share_a_prompt(residual, umm):
    prompt = "a dog and a fox"
    card = umm.make_card(picture(6), "fox")
    both = [Subject(picture(5), "dog"), Subject(card=card)]
    h_y = residual.encode_prompt([prompt], residual.device, 1, False)[0]
    together = residual.encode_subject_prompt([prompt], h_y, both, [frozenset({0}), frozenset({1})])
    alone = umm.encode_subject_prompt([prompt], h_y, [Subject(picture(6), "fox")], [frozenset({0})])
    assert torch.allclose(together[frozenset({1})], alone[frozenset({0})], atol=1e-5)
    alone = residual.encode_subject_prompt([prompt], h_y, both[:1], [frozenset({0})])
    assert torch.allclose(together[frozenset({0})], alone[frozenset({0})], atol=1e-5)


def test_it_saves_and_loads_as_what_it_is(tmp_path, residual):
    residual.tiue.save_pretrained(tmp_path)
    loaded = load_tiue(tmp_path)
    assert loaded.config.residual
    again = make_umm(residual, (residual.image_encoder, residual.feature_extractor))
    again.tiue = loaded
    subject = Subject(picture(5), "dog")
    assert far(draw(again, PROMPT, subjects=subject), draw(residual, PROMPT, subjects=subject)) < 1e-4
    assert not make_tiue().config.residual


def test_untrained_its_loss_is_that_of_the_text(umm, encoded):
    schedule, batch = noise_schedule(umm), encoded.batch(range(4))
    draws = draws_of(encoded.shapes, 4, 0, 0, schedule.config.num_train_timesteps)
    tiue = initial_state(umm, RESIDUAL).tiue
    z_0_BCHW = (batch.mean_BCHW + batch.std_BCHW * draws.posterior_NCHW) * umm.vae.config.scaling_factor
    text = denoising_loss(umm, schedule, z_0_BCHW, batch.h_y_BLD, draws, RESIDUAL.min_snr_gamma)
    assert umm_loss(umm, tiue, schedule, batch, draws, RESIDUAL).item() == pytest.approx(text.item(), rel=1e-4)
    moved = umm_loss(umm, trained(tiue), schedule, batch, draws, RESIDUAL).item()
    assert moved != pytest.approx(text.item(), rel=1e-4)


def test_it_trains_and_is_no_other_run(umm, encoded, tmp_path):
    *_, state = train(umm, encoded, RESIDUAL, deepcopy(initial_state(umm, RESIDUAL)))
    assert state.tiue.mlp[-2].weight.any()
    identity = run_identity(umm, encoded, RESIDUAL.rows_per_step())
    save_state(tmp_path / "run", state, RESIDUAL, identity)
    assert load_state(tmp_path / "run", umm, RESIDUAL, identity).tiue.config.residual
    with pytest.raises(UserError, match="trained with residual=True, not False"):
        load_state(tmp_path / "run", umm, CONFIG, identity)
