"""A subject encoded once: one small file, the same image, and nothing in it is ever executed."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.umm.conftest import make_tiue, picture
from tests.umm.test_pipeline import PROMPT, draw
from umm_bench.errors import UserError
from umm_bench.umm import Subject, SubjectCard, UMMPipeline, load_card


def test_a_card_stands_for_its_pictures(umm, tmp_path):
    pictures = [picture(5), picture(6)]
    card = umm.make_card(pictures, "dog")
    card.save(tmp_path / "new" / "dog.safetensors")
    assert (tmp_path / "new" / "dog.safetensors").stat().st_size < 1024
    loaded = load_card(tmp_path / "new" / "dog.safetensors")
    assert (loaded.phrase, loaded.references) == ("dog", 2)
    assert torch.equal(loaded.words_KD, card.words_KD)
    from_pictures = draw(umm, subjects=Subject(pictures, "dog"))
    assert np.array_equal(draw(umm, subjects=Subject(card=loaded)), from_pictures)
    assert np.abs(draw(umm, subjects=Subject(pictures[0], "dog")) - from_pictures).max() > 1e-4


def test_a_card_needs_neither_tiue_nor_image_encoder(umm, tiny_sd):
    card = umm.make_card(picture(5), "dog")
    bare = UMMPipeline.from_pipe(tiny_sd)
    bare.set_progress_bar_config(disable=True)
    expected = draw(umm, "a cat on snow", subjects=Subject(picture(5), "cat"))
    assert np.array_equal(draw(bare, "a cat on snow", subjects=Subject(card=card, phrase="cat")), expected)


def test_the_average_is_that_of_the_embeddings(umm):
    embeds_nE = umm.embed_images([picture(5), picture(6)])
    averaged = umm.encode_subjects([Subject(phrase="dog", embeds=embeds_nE)])[0]
    assert torch.allclose(averaged, umm.tiue(embeds_nE.mean(dim=0)), atol=1e-6)
    assert torch.allclose(averaged, umm.make_card([picture(5), picture(6)], "dog").words_KD, atol=1e-6)


def test_cards_of_other_lengths_and_pictures_share_a_prompt(umm):
    card = SubjectCard(torch.randn(3, 32), "fox")
    image = draw(umm, "a dog and a fox", subjects=[Subject(picture(5), "dog"), Subject(card=card)])
    assert np.isfinite(image).all()


def test_a_card_for_another_base_is_named(umm):
    with pytest.raises(UserError, match='card of "dog" was made for a base of width 768, this base has 32'):
        draw(umm, PROMPT, subjects=Subject(card=SubjectCard(torch.zeros(1, 768), "dog")))


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was executed",))


def test_pickles_are_refused_unread(tmp_path):
    (tmp_path / "bomb.pkl").write_bytes(pickle.dumps(Bomb()))
    torch.save({"words": torch.zeros(1, 32)}, tmp_path / "card.pt")
    for name in ("bomb.pkl", "card.pt"):
        with pytest.raises(UserError, match="pickled"):
            load_card(tmp_path / name)


def test_other_files_are_no_cards(tmp_path):
    make_tiue().save_pretrained(tmp_path)
    save_file({"words": torch.full((1, 32), float("nan"))}, tmp_path / "nan", metadata={"format": "umm-card/1"})
    save_file({"words": torch.zeros(32)}, tmp_path / "flat", metadata={"format": "umm-card/1"})
    (tmp_path / "text").write_text("a card")
    for name, message in {
        "missing": "no subject card at",
        "diffusion_pytorch_model.safetensors": "is no subject card",
        "nan": "damaged",
        "flat": "damaged",
        "text": "no safetensors file",
    }.items():
        with pytest.raises(UserError, match=message):
            load_card(tmp_path / name)
