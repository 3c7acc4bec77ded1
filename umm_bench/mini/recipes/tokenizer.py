"""The mini tokenizer: a small BPE in CLIP's own format, learnt from the composer's captions."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from umm_bench.mini.world import scenes, sprites

START, END = "<|startoftext|>", "<|endoftext|>"
# CLIP's split into words, numbers one digit at a time, and runs of other signs.
PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def corpus(captions: int = 20_000) -> list[str]:
    """Captions by their frequency, and every concept often enough that its words become whole tokens."""
    texts = [scenes.compose(f"tokenizer-{i}").caption for i in range(captions)]
    names = [concept.name for concept in sprites.load().concepts]
    return texts + names * 60


def digest(tokens: CLIPTokenizer) -> str:
    """Of what each id means: weights learnt with one vocabulary know no other."""
    return hashlib.sha256(json.dumps(tokens.get_vocab(), sort_keys=True).encode()).hexdigest()[:16]


def train(vocab_size: int = 3000, max_length: int = 32) -> CLIPTokenizer:
    """A `CLIPTokenizer`, the same each time, whose end token has the last id (2 would select CLIP's legacy pooling)."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=END, continuing_subword_prefix=""))
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    counts = Counter(corpus())
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 2,
        end_of_word_suffix="</w>",
        initial_alphabet=alphabet,
        # Known beforehand: their ids decide ties, and would follow the random order of a hash map.
        special_tokens=[symbol + "</w>" for symbol in alphabet],
        show_progress=False,
    )
    bpe.train_from_iterator((text for text, n in counts.items() for _ in range(n)), trainer)
    with tempfile.TemporaryDirectory() as folder:
        bpe.model.save(folder)
        merges = [
            line.split() for line in Path(folder, "merges.txt").read_text().splitlines() if not line.startswith("#")
        ]
    # CLIP's layout: the bytes, the bytes that end a word, one token a merge, then the two special tokens.
    tokens = alphabet + [symbol + "</w>" for symbol in alphabet] + ["".join(pair) for pair in merges]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    vocab[START], vocab[END] = len(vocab), len(vocab) + 1
    return CLIPTokenizer(
        vocab=vocab, merges=[tuple(pair) for pair in merges], unk_token=END, bos_token=START, eos_token=END,
        pad_token=END, model_max_length=max_length,
    )  # fmt: skip
