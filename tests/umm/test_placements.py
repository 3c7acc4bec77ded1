"""Pseudo words that are added to the subject's own words, or stand before them: those go on saying what it is."""

import dataclasses
import json
from copy import deepcopy

import pytest
import torch
from torch import nn

from tests.umm.conftest import make_tiue, make_umm, picture
from tests.umm.test_composition import far
from tests.umm.test_pipeline import PROMPT, draw
from tests.umm.test_trainer import CONFIG, ENCODE
from umm_bench.errors import UserError
from umm_bench.umm import Subject, SubjectCard, UMMPipeline, load_card, load_tiue, place_words
from umm_bench.umm.checkpoint import load_state, run_identity, save_state
from umm_bench.umm.encoded import EncodedPairs, encode_pairs
from umm_bench.umm.pairs import read_pairs
from umm_bench.umm.trainer import denoising_loss, initial_state, noise_schedule, train, umm_loss
from umm_bench.umm.trainer import draw as draws_of

ADDED = dataclasses.replace(CONFIG, placement="add")


def trained(tiue):
    """As training leaves it: the last layer no longer zero."""
    nn.init.normal_(tiue.mlp[-2].weight, generator=torch.Generator().manual_seed(0))
    return tiue


@pytest.fixture(scope="module")
def adding(tiny_sd, tiny_image_encoder):
    pipe = make_umm(tiny_sd, tiny_image_encoder, placement="add")
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
    pipe = make_umm(tiny_sd, tiny_image_encoder, placement="add")
    plain = draw(pipe, prompt)
    assert far(draw(pipe, prompt, subjects=Subject(picture(5), phrase), alpha=1.0), plain) < 1e-4
    trained(pipe.tiue)
    assert far(draw(pipe, prompt, subjects=Subject(picture(5), phrase), alpha=1.0), plain) > 1e-3


def test_a_name_of_several_tokens_is_moved_as_far_as_one_of_one():
    words_BKD = torch.tensor([[[6.0, 3.0]]]).expand(2, -1, -1)
    mask_BL = torch.tensor([[False, True, False, False], [False, True, True, True]])
    placed_BLD = place_words(words_BKD, mask_BL, shared=True)
    assert placed_BLD.sum(dim=1).tolist() == [[6, 3], [6, 3]]
    assert placed_BLD[1].tolist() == [[0, 0], [2, 1], [2, 1], [2, 1]]


def test_the_hidden_states_are_those_of_the_sum(adding):
    embeddings = adding.text_encoder.get_input_embeddings()
    ids_BL = adding.tokenizer(PROMPT, padding="max_length", return_tensors="pt").input_ids
    h_y = adding.text_encoder(ids_BL)[0]
    subject = Subject(picture(5), "small dog")
    h_u = adding.encode_subject_prompt([PROMPT], h_y, [subject], [frozenset({0})])[frozenset({0})]
    moved_BLD = embeddings(ids_BL).detach()
    moved_BLD[:, 2:4] += adding.encode_subjects([subject])[0] / 2
    hook = embeddings.register_forward_hook(lambda module, args, out: moved_BLD)
    expected = adding.text_encoder(ids_BL)[0]
    hook.remove()
    assert torch.allclose(h_u[:, 2:4], expected[:, 2:4], atol=1e-5)
    assert (h_u != h_y).any(dim=-1)[0].nonzero().flatten().tolist() == [2, 3]


def test_a_card_is_as_its_pictures_whatever_it_is_called(adding, tiny_sd, tmp_path):
    bare = UMMPipeline.from_pipe(tiny_sd)
    bare.set_progress_bar_config(disable=True)
    adding.make_card(picture(5), "dog").save(tmp_path / "dog.safetensors")
    card = load_card(tmp_path / "dog.safetensors")
    assert card.placement == "add"
    for phrase in ("dog", "small dog"):
        expected = draw(adding, subjects=Subject(picture(5), phrase))
        assert far(draw(bare, subjects=Subject(card=card, phrase=phrase)), expected) < 1e-4


def test_words_that_replace_and_words_that_are_added_share_a_prompt(adding, umm):
    prompt = "a dog and a fox"
    card = umm.make_card(picture(6), "fox")
    both = [Subject(picture(5), "dog"), Subject(card=card)]
    h_y = adding.encode_prompt([prompt], adding.device, 1, False)[0]
    together = adding.encode_subject_prompt([prompt], h_y, both, [frozenset({0}), frozenset({1})])
    alone = umm.encode_subject_prompt([prompt], h_y, [Subject(picture(6), "fox")], [frozenset({0})])
    assert torch.allclose(together[frozenset({1})], alone[frozenset({0})], atol=1e-5)
    alone = adding.encode_subject_prompt([prompt], h_y, both[:1], [frozenset({0})])
    assert torch.allclose(together[frozenset({0})], alone[frozenset({0})], atol=1e-5)


def test_it_saves_and_loads_as_what_it_is(tmp_path, adding):
    adding.tiue.save_pretrained(tmp_path)
    loaded = load_tiue(tmp_path)
    assert loaded.config.placement == "add"
    again = make_umm(adding, (adding.image_encoder, adding.feature_extractor))
    again.tiue = loaded
    subject = Subject(picture(5), "dog")
    assert far(draw(again, PROMPT, subjects=subject), draw(adding, PROMPT, subjects=subject)) < 1e-4
    assert make_tiue().config.placement == "replace"


def test_a_tiue_of_before_there_were_three_placements(tmp_path, adding):
    adding.tiue.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["placement"]
    for older, placement in ((True, "add"), (False, "replace")):
        (tmp_path / "config.json").write_text(json.dumps(config | {"residual": older}))
        assert load_tiue(tmp_path).config.placement == placement
    (tmp_path / "config.json").write_text(json.dumps(config | {"placement": "behind"}))
    with pytest.raises(UserError, match="placement is 'behind'; it must be one of replace, add, before"):
        load_tiue(tmp_path)


def said(pipe, words: str, phrase: str, **more) -> Subject:
    """A subject whose pseudo words are the embeddings of real ones, to stand before its phrase."""
    ids = pipe.tokenizer(words, add_special_tokens=False, return_tensors="pt").input_ids[0]
    embeddings_KD = pipe.text_encoder.get_input_embeddings()(ids).detach()
    return Subject(card=SubjectCard(embeddings_KD, phrase, placement="before"), **more)


def states(pipe, prompt: str) -> torch.Tensor:
    return pipe.text_encoder(pipe.tokenizer(prompt, padding="max_length", return_tensors="pt").input_ids)[0].detach()


def test_before_the_subject_they_say_what_adjectives_would(umm):
    prompt, h_y, whole = "a dog on snow", states(umm, "a dog on snow"), states(umm, "a small red dog on snow")
    h_u = umm.encode_subject_prompt([prompt], h_y, [said(umm, "small red", "dog")], [frozenset({0})])[frozenset({0})]
    assert torch.allclose(h_u[:, 2:5], whole[:, 2:5], atol=1e-5)  # small, red, dog
    assert torch.equal(h_u[:, :2], h_y[:, :2])
    assert torch.equal(h_u[:, 5:], h_y[:, 3:-2])
    assert not torch.allclose(h_u[:, 5:7], whole[:, 5:7], atol=1e-3)  # the words around are those of the text alone


def test_several_subjects_have_their_own_words_before_them(umm):
    prompt = "a dog and a fox on snow"
    subjects = [said(umm, "red", "fox"), said(umm, "small blue", "dog")]
    branches = [frozenset({0}), frozenset({1}), frozenset({0, 1})]
    found = umm.encode_subject_prompt([prompt], states(umm, prompt), subjects, branches)
    whole = states(umm, "a small blue dog and a red fox on snow")
    assert torch.allclose(found[branches[2]][:, 2:5], whole[:, 2:5], atol=1e-5)
    assert torch.allclose(found[branches[2]][:, 7:9], whole[:, 7:9], atol=1e-5)
    assert torch.equal(found[branches[2]][:, 5:7], states(umm, prompt)[:, 3:5])
    for branch, text, places in ((0, "a dog and a red fox on snow", slice(5, 7)), (1, "a small blue dog", slice(2, 5))):
        assert torch.allclose(found[branches[branch]][:, places], states(umm, text)[:, places], atol=1e-5)


def test_they_mix_with_words_that_replace_and_that_are_added(umm, adding):
    prompt, h_y = "a dog and a fox on snow", states(umm, "a dog and a fox on snow")
    before, added, both = said(umm, "red", "dog"), Subject(card=adding.make_card(picture(6), "fox")), frozenset({0, 1})
    mixed = umm.encode_subject_prompt([prompt], h_y, [before, added], [both])[both]
    swapped = umm.encode_subject_prompt([prompt], h_y, [added, before], [both])[both]
    assert torch.allclose(mixed, swapped, atol=1e-6)
    longer = "a red dog and a fox on snow"
    alone = adding.encode_subject_prompt([longer], states(umm, longer), [added], [frozenset({0})])[frozenset({0})]
    assert torch.allclose(mixed[:, 6], alone[:, 6], atol=1e-5)


def test_the_end_of_a_prompt_that_makes_room_for_them_is_named(umm, caplog):
    for prompt, lost in (("a dog" + " on snow" * 9, []), ("a dog" + " on snow" * 10, ["on snow"])):
        caplog.clear()
        umm.encode_subject_prompt([prompt], states(umm, prompt), [said(umm, "small red", "dog")], [frozenset({0})])
        assert [record.args[0] for record in caplog.records if "pseudo words" in record.message] == lost


def test_a_prompt_without_room_for_them_is_refused_and_its_end_may_go(umm):
    fits = "on snow " * 9 + "a dog"  # 18 + 2 tokens and two words before the last, of 22
    h_y = states(umm, fits)
    h_u = umm.encode_subject_prompt([fits], h_y, [said(umm, "small red", "dog")], [frozenset({0})])[frozenset({0})]
    assert torch.allclose(h_u[:, :23], states(umm, "on snow " * 9 + "a small red dog")[:, :23], atol=1e-5)
    with pytest.raises(UserError, match='cut at 20 tokens, before the end of "dog"'):
        text = "on snow " * 9 + "on a dog"
        umm.encode_subject_prompt([text], states(umm, text), [said(umm, "small red", "dog")], [frozenset({0})])


def test_an_untrained_tiue_before_the_subject_trains_and_is_saved(umm, encoded, tmp_path):
    config = dataclasses.replace(CONFIG, placement="before", num_pseudo_words=3)
    *_, state = train(umm, encoded, config, deepcopy(initial_state(umm, config)))
    assert not torch.equal(state.tiue.mlp[-2].weight, initial_state(umm, config).tiue.mlp[-2].weight)
    state.tiue.save_pretrained(tmp_path)
    assert load_tiue(tmp_path).config.placement == "before"


def test_untrained_its_loss_is_that_of_the_text(umm, encoded):
    schedule, batch = noise_schedule(umm), encoded.batch(range(4))
    draws = draws_of(encoded.shapes, 4, 0, 0, schedule.config.num_train_timesteps)
    tiue = initial_state(umm, ADDED).tiue
    z_0_BCHW = (batch.mean_BCHW + batch.std_BCHW * draws.posterior_NCHW) * umm.vae.config.scaling_factor
    text = denoising_loss(umm, schedule, z_0_BCHW, batch.h_y_BLD, draws, ADDED.min_snr_gamma)
    assert umm_loss(umm, tiue, schedule, batch, draws, ADDED).item() == pytest.approx(text.item(), rel=1e-4)
    moved = umm_loss(umm, trained(tiue), schedule, batch, draws, ADDED).item()
    assert moved != pytest.approx(text.item(), rel=1e-4)


def test_it_trains_and_is_no_other_run(umm, encoded, tmp_path):
    *_, state = train(umm, encoded, ADDED, deepcopy(initial_state(umm, ADDED)))
    assert state.tiue.mlp[-2].weight.any()
    identity = run_identity(umm, encoded, ADDED.rows_per_step())
    save_state(tmp_path / "run", state, ADDED, identity)
    assert load_state(tmp_path / "run", umm, ADDED, identity).tiue.config.placement == "add"
    with pytest.raises(UserError, match="trained with placement=add, not replace"):
        load_state(tmp_path / "run", umm, CONFIG, identity)
