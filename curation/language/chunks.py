"""Noun phrases of a parsed caption as token spans: spaCy's chunks, mended and expanded.

The small English model knows newspapers. In captions it takes a noun at the end of a row of modifiers for a verb
("a red rose") and splits colours ("a teal and gray bicycle"); both are mended here. Expansion follows GRIT: modifiers
and prepositional parts belong to the phrase, conjuncts do not, and a span inside another is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from curation.language.vocabulary import (
    ABSTRACT,
    COLOUR,
    COLOURED_THING,
    MATERIAL,
    PARTITIVE,
    PICTURE,
    PLURAL_ONLY,
    RENDERING,
    STOCK,
    words,
)

if TYPE_CHECKING:
    from spacy.tokens import Doc, Token

SINGULAR = frozenset({"a", "an", "another", "each", "every", "one"})
DETERMINERS = frozenset({"a", "an", "the", "this", "that", "these", "those", "my", "your", "his", "her", "its", "our"})
SEPARATORS = '-–—|/:;•·~()[]{}<>"“”«»*#+='
JOINS = frozenset({"and", "&", "-", ",", "/"})
FUNCTION_WORDS = frozenset({"ADP", "AUX", "CCONJ", "DET", "PART", "PRON", "SCONJ"})
# The tagger calls these adjectives or adverbs now and then, or spaCy's stop words lack them.
BOUNDARY_WORDS = words("above against below behind beside inside near next outside over under with")
NO_PART = ABSTRACT | PICTURE - {"dots", "stripes"}
# A modifier, whatever the tagger makes of it: the noun is still to come.
LOOKS = COLOUR | RENDERING


@dataclass(frozen=True)
class Chunk:
    """Tokens ``start`` to ``end`` of a doc; ``head`` is the index of the noun that says what the thing is."""

    start: int
    end: int
    head: int


def chunks(doc: Doc) -> Iterator[Chunk]:
    """Maximal spans from left to right; none overlaps another."""
    bases = base_spans(doc)
    covered_to = 0
    for start, end in bases:
        if end <= covered_to:
            continue
        start, end = mend(doc, max(start, covered_to), end, covered_to)
        whole, end = end, without_picture(doc, start, end)
        chunk = expand(doc, start, end, {low: high for low, high in bases if low >= end})
        covered_to = max(chunk.end, whole)
        yield chunk


def base_spans(doc: Doc) -> list[tuple[int, int]]:
    """spaCy's noun chunks, and the articles that it gave to no chunk since it saw no noun after them."""
    spans = [part for chunk in doc.noun_chunks for part in split(doc, chunk.start, chunk.end)]
    covered = {i for start, end in spans for i in range(start, end)}
    spans += [(i, i + 1) for i, token in enumerate(doc) if token.lower_ in ("a", "an") and i not in covered]
    return sorted(spans)


def split(doc: Doc, start: int, end: int) -> Iterator[tuple[int, int]]:
    """A chunk's parts between dashes, bars, quotes and brackets, which part titles and not words of one name."""
    for i in range(start, end + 1):
        if i == end or (doc[i].text[0] in SEPARATORS and not is_inside_word(doc, i)):
            if i > start:
                yield start, i
            start = i + 1


def is_inside_word(doc: Doc, index: int) -> bool:
    return index > 0 and not doc[index].whitespace_ and not doc[index - 1].whitespace_


def mend(doc: Doc, start: int, end: int, free_from: int) -> tuple[int, int]:
    """The span with the modifiers on its left and the noun on its right that the parser cut off."""
    while start > free_from and doc[start].lower_ not in DETERMINERS and is_cut_off(doc, start - 1, free_from):
        start -= 1
    determined = doc[start].lower_ in DETERMINERS
    grown = end
    while grown < len(doc):
        if joins_colours(doc, grown):
            grown += 2
        elif (
            is_boundary(doc[grown])
            or is_verb(doc, grown)
            or not (
                (is_modifier(doc[grown - 1]) and (determined or doc[grown].pos_ in ("ADJ", "NOUN", "PROPN")))
                or disagrees(doc[start], doc[grown - 1], doc[grown])
            )
        ):
            break
        else:
            grown += 1
        if not is_modifier(doc[grown - 1]):
            end = grown  # what has no noun at its end stays as it was
    if doc[start].lower_ in SINGULAR and doc[grown - 1].lower_ not in LOOKS - COLOURED_THING:
        end = grown  # "a red rose", with a rose that rises: an article has its noun somewhere
    return start, end


def without_picture(doc: Doc, start: int, end: int) -> int:
    """ "buffalo herd stock photography": a title that names the picture after the thing in it; the thing is kept."""
    if doc[start].lower_ in DETERMINERS:
        return end
    last = end
    while last > start and lemma(doc[last - 1]) in PICTURE | STOCK:
        last -= 1
    return last if last > start and doc[last - 1].pos_ in ("NOUN", "PROPN") else end


def is_cut_off(doc: Doc, index: int, free_from: int) -> bool:
    """Whether the token is a modifier of the chunk after it: its article, a colour, "teal and" of "teal and gray"."""
    token = doc[index]
    if token.pos_ in ("DET", "ADJ") or token.lower_ in LOOKS:
        return token.lower_ not in BOUNDARY_WORDS
    return index > free_from and joins_colours(doc, index)


def joins_colours(doc: Doc, index: int) -> bool:
    """Whether token ``index`` joins two colours of one thing: "orange and brown horse", not "orange and lime"."""
    return (
        doc[index].lower_ in JOINS
        and 0 < index < len(doc) - 2
        and doc[index - 1].lower_ in COLOUR
        and doc[index + 1].lower_ in COLOUR
        and not is_boundary(doc[index + 2])
    )


def is_boundary(token: Token) -> bool:
    """Where a noun phrase ends. A stop word's part of speech is reliable; "dolphin" as a preposition is not."""
    if token.pos_ in ("PUNCT", "SPACE", "SYM") or token.text[0] in SEPARATORS or token.lower_ in BOUNDARY_WORDS:
        return True
    return token.pos_ in FUNCTION_WORDS and token.is_stop


def is_verb(doc: Doc, index: int) -> bool:
    """ "holding a ...", "fluttering in ...", not the "flying" of "flying saucer"."""
    return doc[index].tag_ in ("VBG", "VBZ") and (index + 1 == len(doc) or is_boundary(doc[index + 1]))


def is_modifier(token: Token) -> bool:
    return token.pos_ not in ("NOUN", "PROPN") or token.lower_ in LOOKS


def disagrees(first: Token, head: Token, after: Token) -> bool:
    """Whether what the parser cut off is part of the name: a noun right after a noun, or "a teddy bear", where after
    one teddy the verb would be "bears"."""
    if after.tag_ in ("NN", "NNS"):
        return True
    return first.lower_ in SINGULAR and head.tag_ in ("NN", "NNP") and after.tag_ in ("VB", "VBP", "NNP")


def expand(doc: Doc, start: int, end: int, following: dict[int, int]) -> Chunk:
    """The span with its prepositional parts. ``following`` are the spans to the right: start -> end.

    "of" always belongs to the thing; "with" where it brings a bare noun ("a house with garden"), since a noun
    with an article is a thing of its own ("a fox with a car"); "in" where it names a colour or a material.
    """
    head = end - 1
    first = head
    while end + 1 < len(doc):
        words = 2 if doc[end].lower_ == "made" and doc[end + 1].lower_ in ("of", "from") else 1
        preposition, part = doc[end + words - 1].lower_, end + words
        if part not in following:
            break
        _, stop = mend(doc, part, following[part], part)
        tail = doc[stop - 1]
        bare = doc[part].lower_ not in DETERMINERS and doc[part].pos_ != "PRON"
        attached = start <= doc[part - 1].head.i < end
        if doc[first].lower_ in PICTURE and preposition == "of":
            break  # "a photo of a dog": the dog is a phrase of its own
        if preposition == "of" or words == 2:
            if head == first and lemma(doc[head]) in PARTITIVE:
                head = stop - 1  # "a pair of boots" shows boots
        elif not (
            (preposition in ("with", "without") and bare and attached and lemma(tail) not in NO_PART)
            or (preposition == "in" and bare and tail.lower_ in COLOUR | MATERIAL)
        ):
            break
        end = stop
    return Chunk(start, end, head)


def lemma(token: Token) -> str:
    """Lower case, of the token as a noun, whatever it was taken for."""
    return token.lemma_.lower() if token.pos_ == "NOUN" and token.lower_ not in PLURAL_ONLY else token.lower_
