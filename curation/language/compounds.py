"""A hyphenated compound is one word: "a hot-dog" shows no dog, and "a two-seater sofa" no seater.

The model was trained on words that are split at their hyphens, so it parses them that way; its tokens are joined after
that. A compound's part of speech and lemma are those of its last word.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spacy.tokens import Doc

# All that fonts and editors put between the words of a compound; the en dash only where no space is beside it.
HYPHENS = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2212\ufe58\ufe63\uff0d"), "-")
COMPOUND = re.compile(r"[^\W_]+(?:['’]?-['’]?[^\W_]+)+")
VARIANT = re.compile(rf"(?<=\w)[{''.join(map(chr, HYPHENS))}](?=\w)")


def with_hyphens(text: str) -> str:
    """The text with "-" for any sign between two letters that stands for it; as long as before."""
    return VARIANT.sub("-", text)


def join_compounds(doc: Doc) -> Doc:
    """The doc, in which every compound is one token."""
    spans = (doc.char_span(*match.span()) for match in COMPOUND.finditer(doc.text))
    with doc.retokenize() as retokenizer:
        for span in spans:
            if span is not None and len(span) > 1:  # None where a token goes beyond it: a code, an address
                last = span[-1]
                start = span.text.lower()
                lemma = start.removesuffix(last.lower_) + last.lemma_.lower()
                retokenizer.merge(span, attrs={"LEMMA": lemma, "POS": last.pos, "TAG": last.tag})
    return doc


def spellings(name: str) -> tuple[str, ...]:
    """How word lists may have a compound: "t-shirt", "hotdog", "teddy bear"."""
    return (name, name.replace("-", ""), name.replace("-", " "), name.replace("-", "_"))


def last_word(name: str) -> str:
    return name.rpartition("-")[2]
