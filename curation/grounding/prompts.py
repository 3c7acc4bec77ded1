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
    """``text`` asks for some phrases; ``spans[i]`` are the token positions of phrase number ``indices[i]``."""

    text: str
    indices: tuple[int, ...]
    spans: tuple[tuple[int, ...], ...]


def make_prompts(phrases: Sequence[str], tokenizer: Any, max_tokens: int) -> list[Prompt]:
    """Prompts that together ask for every phrase, in order; phrases that are too long alone are left out.

    Args:
        tokenizer: a fast tokenizer, for its offsets.
        max_tokens: the model's limit, special tokens included.
    """
    cleaned = [" ".join(DELIMITERS.sub(" ", phrase).lower().split()) for phrase in phrases]
    groups: list[list[int]] = []
    room = 0
    for index, phrase in enumerate(cleaned):
        cost = len(tokenizer(phrase, add_special_tokens=False)["input_ids"]) + 1  # and its "."
        if not phrase or cost > max_tokens - SPECIAL_TOKENS:
            continue
        if not groups or cost > room:
            groups.append([])
            room = max_tokens - SPECIAL_TOKENS
        groups[-1].append(index)
        room -= cost
    return [make_prompt(cleaned, group, tokenizer) for group in groups]


def make_prompt(cleaned: Sequence[str], indices: Sequence[int], tokenizer: Any) -> Prompt:
    text = ""
    edges = []
    for index in indices:
        text += " " if text else ""
        edges.append((len(text), len(text) + len(cleaned[index])))
        text += cleaned[index] + "."
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    spans = tuple(
        tuple(position for position, (low, high) in enumerate(offsets) if high > low and low >= start and high <= end)
        for start, end in edges
    )
    return Prompt(text, tuple(indices), spans)
