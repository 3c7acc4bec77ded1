"""The tokenizer in CLIP's format: whole words, a known end token, nothing unknown."""

import pytest
from transformers import CLIPTokenizer

from umm_bench.mini import family
from umm_bench.mini.recipes import tokenizer

pytestmark = pytest.mark.skipif(not (family.WEIGHTS / "sd").is_dir(), reason="no mini weights: run make mini")


def test_words_of_the_world_are_single_tokens_and_strangers_survive():
    tokens = CLIPTokenizer.from_pretrained(family.path("sd") / "tokenizer")
    assert tokens.tokenize("a red fox on a beach") == ["a</w>", "red</w>", "fox</w>", "on</w>", "a</w>", "beach</w>"]
    assert tokens.eos_token_id == len(tokens) - 1 != 2 and tokens.pad_token == tokens.eos_token
    assert tokens.decode(tokens("zyzzyva ünïcode").input_ids, skip_special_tokens=True).strip() == "zyzzyva ünïcode"


def test_the_same_captions_give_the_same_tokens(monkeypatch):
    few = tokenizer.corpus(400)[:600]
    monkeypatch.setattr(tokenizer, "corpus", lambda: few)
    first, second, third = (tokenizer.train().backend_tokenizer.to_str() for _ in range(3))
    assert first == second == third
