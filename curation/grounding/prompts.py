"""Phrases to GroundingDINO prompts, and each phrase's token positions in its prompt.

Every prompt ends in "." (without it the last phrase's attention depends on the padding, hence on batch-mates),
"." and "?" inside a phrase would split it, and more tokens than the model's limit are lost: phrases that do not
fit go to a further prompt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

DELIMITERS = re.compile(r"[.?]")
SPECIAL_TOKENS = 2  # [CLS] and [SEP]


@dataclass(frozen=True)
class Prompt:
    """``text`` asks for some phrases; ``spans[i]`` are the positions in ``tokens`` of phrase number ``indices[i]``."""

    text: str
    tokens: tuple[int, ...]
    indices: tuple[int, ...]
    spans: tuple[tuple[int, ...], ...]


def make_prompts(rows: Sequence[Sequence[str]], tokenizer: Any, max_tokens: int) -> list[list[Prompt]]:
    """For each row of phrases, prompts that together ask for all of them, in order; phrases that are too long alone
    are left out.

    Args:
        tokenizer: a fast tokenizer, for its offsets.
        max_tokens: the model's limit, special tokens included.
    """
    cleaned = [[" ".join(DELIMITERS.sub(" ", phrase).lower().split()) for phrase in row] for row in rows]
    phrases = list(dict.fromkeys(phrase for row in cleaned for phrase in row))
    ids = tokenizer(phrases, add_special_tokens=False)["input_ids"] if phrases else []
    costs = {phrase: len(tokens) + 1 for phrase, tokens in zip(phrases, ids, strict=True)}  # and its "."
    drafts = [draft(row, costs, max_tokens - SPECIAL_TOKENS) for row in cleaned]
    texts = [
        " ".join(f"{row[i]}." for i in group) for row, groups in zip(cleaned, drafts, strict=True) for group in groups
    ]
    encoded = tokenizer(texts, return_offsets_mapping=True) if texts else {"input_ids": [], "offset_mapping": []}
    made = iter(zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True))
    return [
        [make_prompt([row[i] for i in group], group, *next(made)) for group in groups]
        for row, groups in zip(cleaned, drafts, strict=True)
    ]


def draft(phrases: Sequence[str], costs: dict[str, int], room: int) -> list[list[int]]:
    """Which phrases share a prompt of ``room`` tokens."""
    groups: list[list[int]] = []
    left = 0
    for index, phrase in enumerate(phrases):
        cost = costs[phrase]
        if not phrase or cost > room:
            continue
        if not groups or cost > left:
            groups.append([])
            left = room
        groups[-1].append(index)
        left -= cost
    return groups


def make_prompt(
    phrases: Sequence[str], indices: Sequence[int], text: str, tokens: Sequence[int], offsets: Sequence[tuple[int, int]]
) -> Prompt:
    """``text`` is the phrases, each with its "."; ``offsets`` are the characters of its tokens."""
    spans = []
    start = 0
    for phrase in phrases:
        end = start + len(phrase)
        spans.append(tuple(i for i, (low, high) in enumerate(offsets) if high > low and low >= start and high <= end))
        start = end + len(". ")
    return Prompt(text, tuple(tokens), tuple(indices), tuple(spans))
