"""Words become positions, images become words, and nothing but the subject's hidden states changes."""

from types import SimpleNamespace

import pytest
import torch

from tests.umm.conftest import make_tiue
from umm_bench.errors import UserError
from umm_bench.umm import (
    find_phrase,
    fuse_hidden_states,
    load_tiue,
    place_words,
    read_positions,
    rearranged_hidden_states,
)


@pytest.mark.parametrize(
    ("prompt", "phrase", "tokens"),
    [
        ("a dog on the beach", "dog", ["dog</w>"]),
        ("a small  Red dog on snow", "small red dog", ["small</w>", "red</w>", "dog</w>"]),
        ("the beach and a dog", "dog", ["dog</w>"]),
        ("dog", "DOG", ["dog</w>"]),
        ("a hat, on a dog.", "hat", ["h", "a", "t</w>"]),
    ],
)
def test_find_phrase_gives_the_tokens_of_the_phrase(tiny_tokenizer, prompt, phrase, tokens):
    ids = tiny_tokenizer(prompt)["input_ids"]
    found = [ids[position] for position in find_phrase(tiny_tokenizer, prompt, phrase)]
    assert tiny_tokenizer.convert_ids_to_tokens(found) == tokens


@pytest.mark.parametrize("prompt", ["a café on snow", "a cafe\u0301 on snow"])
@pytest.mark.parametrize("phrase", ["café", "cafe\u0301", "CAFÉ"])
def test_find_phrase_in_any_unicode_form(tiny_tokenizer, prompt, phrase):
    positions = find_phrase(tiny_tokenizer, prompt, phrase)
    after = find_phrase(tiny_tokenizer, prompt, "on")
    assert positions == tuple(range(2, after[0]))  # all between "a" and "on"


def test_an_accent_belongs_to_its_letter(tiny_tokenizer):
    with pytest.raises(UserError, match="does not contain"):
        find_phrase(tiny_tokenizer, "a cafe\u0301 on snow", "cafe")


@pytest.mark.parametrize(
    ("prompt", "phrase", "message"),
    [
        ("a fox on snow", "dog", "does not contain"),
        ("", "dog", "does not contain"),
        ("a dog and a dog", "dog", "2 times"),
        ("a hotdog", "dog", "does not contain"),
        ("a dog", " ", "empty"),
        ("on snow " * 11 + "a red dog", "red dog", "cut at 22 tokens"),
    ],
)
def test_find_phrase_errors(tiny_tokenizer, prompt, phrase, message):
    with pytest.raises(UserError, match=message):
        find_phrase(tiny_tokenizer, prompt, phrase)


def test_an_occurrence_says_which_is_meant(tiny_tokenizer):
    prompt = "a dog on the beach, a red dog"
    first, second = (find_phrase(tiny_tokenizer, prompt, "dog", n) for n in (1, 2))
    assert (first, second) == (
        find_phrase(tiny_tokenizer, "a dog", "dog"),
        find_phrase(tiny_tokenizer, prompt, "red dog")[1:],
    )
    for n in (0, 3):
        with pytest.raises(UserError, match=f'has no occurrence {n} of "dog"; it has 2'):
            find_phrase(tiny_tokenizer, prompt, "dog", n)


def test_phrase_may_end_at_the_last_place(tiny_tokenizer):
    prompt = "on snow " * 10 + "a dog"
    assert find_phrase(tiny_tokenizer, prompt, "dog") == (22,)


def test_place_words_repeats_the_last_word():
    words_BKD = torch.arange(1.0, 5.0).reshape(1, 2, 2)
    mask_BL = torch.tensor([[False, True, True, True, False]])
    assert place_words(words_BKD, mask_BL)[0].tolist() == [[0, 0], [1, 2], [3, 4], [3, 4], [0, 0]]


def test_no_words_changed_means_no_states_changed(tiny_sd, tiny_tokenizer):
    ids_BL = tiny_tokenizer("a dog on snow", padding="max_length", return_tensors="pt").input_ids
    h_y = tiny_sd.text_encoder(ids_BL)[0]
    own_BLD = tiny_sd.text_encoder.get_input_embeddings()(ids_BL)
    mask_BL = torch.zeros_like(ids_BL, dtype=torch.bool)
    mask_BL[:, 2] = True
    h_r = rearranged_hidden_states(tiny_sd.text_encoder, ids_BL, mask_BL, own_BLD)
    assert h_r.shape[1] == 3
    assert torch.allclose(fuse_hidden_states(h_y, h_r, mask_BL), h_y, atol=1e-5)


def test_h_u_differs_at_the_subject_only_and_equals_the_full_encoding(tiny_sd, tiny_tokenizer):
    encoder = tiny_sd.text_encoder
    ids_BL = tiny_tokenizer("a small dog on snow", padding="max_length", return_tensors="pt").input_ids
    mask_BL = torch.zeros_like(ids_BL, dtype=torch.bool)
    mask_BL[:, 2:4] = True
    words_BLD = place_words(torch.randn(1, 1, 32), mask_BL)
    h_y = encoder(ids_BL)[0]
    h_u = fuse_hidden_states(h_y, rearranged_hidden_states(encoder, ids_BL, mask_BL, words_BLD), mask_BL)
    changed = (h_u != h_y).any(dim=-1)
    assert changed.tolist() == mask_BL.tolist()
    # against the definition: all tokens encoded, with the embedding weights themselves changed
    hook = encoder.get_input_embeddings().register_forward_hook(
        lambda module, args, out: torch.where(mask_BL[..., None], words_BLD, out)
    )
    full = encoder(ids_BL)[0]
    hook.remove()
    assert torch.allclose(h_u[mask_BL], full[mask_BL], atol=1e-5)
    assert not encoder.get_input_embeddings()._forward_hooks


def test_a_unet_that_reads_a_summary_finds_the_subject_where_the_text_ends(tiny_sd, tiny_tokenizer):
    encoder, caption = tiny_sd.text_encoder, "a dog on snow"
    ids_BL = tiny_tokenizer(caption, padding="max_length", return_tensors="pt").input_ids
    mask_BL = torch.zeros_like(ids_BL, dtype=torch.bool)
    mask_BL[:, 2] = True
    bases = {
        kind: SimpleNamespace(
            tokenizer=tiny_tokenizer, unet=SimpleNamespace(config=SimpleNamespace(addition_embed_type=kind))
        )
        for kind in (None, "text")
    }
    assert torch.equal(read_positions(bases[None], ids_BL, mask_BL), mask_BL)
    read_BL = read_positions(bases["text"], ids_BL, mask_BL)
    end = len(tiny_tokenizer(caption).input_ids) - 1
    assert read_BL[0].tolist() == [i == 2 or i >= end for i in range(ids_BL.shape[1])]
    words_BLD = place_words(torch.randn(1, 1, 32), mask_BL)
    h_y = encoder(ids_BL)[0]
    h_u = fuse_hidden_states(h_y, rearranged_hidden_states(encoder, ids_BL, mask_BL, words_BLD, read_BL), read_BL)
    changed = (h_u != h_y).any(dim=-1)
    assert changed.tolist() == read_BL.tolist()
    all_of_it = rearranged_hidden_states(encoder, ids_BL, mask_BL, words_BLD, torch.ones_like(mask_BL))
    assert torch.allclose(h_u[read_BL], all_of_it[read_BL], atol=1e-5)


def test_the_hook_leaves_when_the_encoder_fails(tiny_sd):
    mask_BL = torch.ones(1, 3, dtype=torch.bool)
    too_wide = torch.randn(1, 3, 999)
    with pytest.raises(RuntimeError):
        rearranged_hidden_states(tiny_sd.text_encoder, torch.ones(1, 3, dtype=torch.long), mask_BL, too_wide)
    assert not tiny_sd.text_encoder.get_input_embeddings()._forward_hooks


def test_save_and_load(tmp_path):
    tiue = make_tiue(num_pseudo_words=3)
    tiue.save_pretrained(tmp_path)
    embeds_BE = torch.randn(2, 24)
    assert load_tiue(tmp_path)(embeds_BE).shape == (2, 3, 32)
    assert torch.equal(load_tiue(tmp_path)(embeds_BE), tiue(embeds_BE))


def test_pickled_weights_are_refused(tmp_path):
    make_tiue().save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(UserError, match="pickled"):
        load_tiue(tmp_path)
    with pytest.raises(UserError, match="no TIUE"):
        load_tiue(tmp_path / "nothing")
