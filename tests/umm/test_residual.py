"""A residual pseudo word is the subject's own word and what its image adds."""

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
from umm_bench.umm import Subject, UMMPipeline, load_tiue, subject_words
from umm_bench.umm.checkpoint import load_state, run_identity, save_state
from umm_bench.umm.encoded import EncodedPairs, encode_pairs
from umm_bench.umm.pairs import read_pairs
from umm_bench.umm.trainer import initial_state, train

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


@pytest.mark.parametrize(
    ("prompt", "phrase"), [("a dog on snow", "dog"), ("a Small  red dog on snow", "small red dog")]
)
def test_untrained_it_is_the_word(tiny_sd, tiny_image_encoder, prompt, phrase):
    pipe = make_umm(tiny_sd, tiny_image_encoder, residual=True)
    plain = draw(pipe, prompt)
    assert far(draw(pipe, prompt, subjects=Subject(picture(5), phrase), alpha=1.0), plain) < 1e-4
    trained(pipe.tiue)
    assert far(draw(pipe, prompt, subjects=Subject(picture(5), phrase), alpha=1.0), plain) > 1e-3


def test_a_name_of_several_tokens_is_moved_as_far_as_one_of_one(residual):
    embeds_1E = residual.embed_images([picture(5)])
    embeddings = residual.text_encoder.get_input_embeddings()
    moved = []
    for phrase in ("dog", "small red dog"):
        words_KD = residual.encode_subjects([Subject(phrase=phrase, embeds=embeds_1E)])[0]
        ids = residual.tokenizer(phrase, add_special_tokens=False, return_tensors="pt").input_ids[0]
        assert len(words_KD) == len(ids) == len(phrase.split())
        moved.append((words_KD - embeddings(ids)).sum(dim=0))
    assert torch.allclose(moved[0], moved[1], atol=1e-5)
    assert torch.allclose(moved[0], residual.tiue(embeds_1E)[0, 0], atol=1e-5)


def test_training_and_sampling_make_the_same_words(residual):
    caption, phrase = "a small dog on snow", "small dog"
    embeds_1E = residual.embed_images([picture(5)])
    ids_BL = residual.tokenizer(caption, padding="max_length", return_tensors="pt").input_ids
    mask_BL = torch.zeros_like(ids_BL, dtype=torch.bool)
    mask_BL[:, 2:4] = True
    words_BLD = subject_words(residual.tiue, residual.text_encoder, embeds_1E, ids_BL, mask_BL)
    assert not words_BLD[~mask_BL].any()
    sampled_KD = residual.encode_subjects([Subject(picture(5), phrase)])[0]
    assert torch.allclose(words_BLD[mask_BL], sampled_KD, atol=1e-5)


def test_a_card_holds_whole_words(residual, tiny_sd):
    bare = UMMPipeline.from_pipe(tiny_sd)
    bare.set_progress_bar_config(disable=True)
    card = residual.make_card(picture(5), "dog")
    assert far(draw(bare, subjects=Subject(card=card)), draw(residual, subjects=Subject(picture(5), "dog"))) < 1e-4


def test_it_saves_and_loads_as_what_it_is(tmp_path, residual):
    residual.tiue.save_pretrained(tmp_path)
    loaded = load_tiue(tmp_path)
    assert loaded.config.residual
    again = make_umm(residual, (residual.image_encoder, residual.feature_extractor))
    again.tiue = loaded
    subject = Subject(picture(5), "dog")
    assert far(draw(again, PROMPT, subjects=subject), draw(residual, PROMPT, subjects=subject)) < 1e-4
    assert not make_tiue().config.residual


def test_it_learns_and_is_no_other_run(umm, pairs_folder, tmp_path):
    pairs = EncodedPairs(list(encode_pairs(umm, read_pairs(pairs_folder()), tmp_path / "cache", ENCODE)))
    start = initial_state(umm, RESIDUAL)
    assert not start.tiue.mlp[-2].weight.any()
    *_, state = train(umm, pairs, RESIDUAL, deepcopy(start))
    assert state.tiue.mlp[-2].weight.any()
    identity = run_identity(umm, pairs, RESIDUAL.rows_per_step())
    save_state(tmp_path / "run", state, RESIDUAL, identity)
    assert load_state(tmp_path / "run", umm, RESIDUAL, identity).tiue.config.residual
    with pytest.raises(UserError, match="trained with residual=True, not False"):
        load_state(tmp_path / "run", umm, CONFIG, identity)
