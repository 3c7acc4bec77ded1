"""What a caption says between two of its subjects: "sitting on" of "a cat sitting on a sofa" (spaCy's dependencies)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spacy.tokens import Doc, Token

# A relation has one of these; "and" and a comma alone are none.
RELATING = frozenset({"ADP", "VERB"})
MAX_WORDS = 6


@dataclass(frozen=True)
class Relation:
    """``caption[start:end]`` stands between subjects number ``first`` and ``second``."""

    first: int
    second: int
    start: int
    end: int


def relations(doc: Doc, subjects: Sequence[tuple[int, int]]) -> list[Relation]:
    """Of each two subjects that one phrase joins.

    Args:
        subjects: character spans in ``doc``, in its order, none inside another.
    """
    spans = [doc.char_span(start, end, alignment_mode="expand") for start, end in subjects]
    found = []
    for (i, first), (j, second) in combinations(enumerate(spans), 2):
        if first is None or second is None or first.end > second.start:
            continue
        way = [token for token in path(first.root, second.root) if token not in first and token not in second]
        if not way or any(token in span for span in spans if span is not None for token in way):
            continue  # joined by nothing, or through another subject
        low, high = min(token.i for token in way), max(token.i for token in way) + 1
        words = doc[low:high]
        if (
            first.end <= low
            and high <= second.start
            and len(words) <= MAX_WORDS
            and not any(token.dep_ == "conj" for token in way)
            and any(token.pos_ in RELATING for token in words)
            and not any(span is not None and low < span.end and span.start < high for span in spans)
        ):
            found.append(Relation(i, j, words.start_char, words.end_char))
    return found


def path(first: Token, second: Token) -> list[Token]:
    """The tokens on the way from one to the other over the parse; empty where there is none."""
    up = [first, *first.ancestors]
    down = [second, *second.ancestors]
    shared = next((token for token in up if token in down), None)
    if shared is None:
        return []
    return [*up[: up.index(shared) + 1], *reversed(down[: down.index(shared)])]
