"""How often each thing was mined: the bench reads this to tell rare subjects from frequent ones."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from curation.language.compounds import with_hyphens
from curation.language.vocabulary import words

MAX_WORDS = 3
WORD = re.compile(r"[^\W_](?:[\w'’-]*\w)?")
# A name does not begin or go through these: of "a pair of red boots" only "red boots" and "boots" are names.
NOT_IN_NAMES = words("a an the this that these those of and or with in on at by for from to my your his her its")


def names(phrase: str, head: str, concept: str) -> list[str]:
    """What a pair's subject may be called: its head noun's lemma, and that with one and two words before it.

    "a white polar bear" counts for "bear", "polar bear" and "white polar bear", so that a compound class noun
    can be looked up whichever of its words the tagger took for an adjective.
    """
    whole, noun = with_hyphens(phrase.lower()), with_hyphens(head.lower())
    found = re.search(rf"(?<![\w-]){re.escape(noun)}(?![\w-])", whole) if noun else None
    earlier = WORD.findall(whole[: found.start()]) if found else []
    result = [concept]
    for word in reversed(earlier[-(MAX_WORDS - 1) :]):
        if word in NOT_IN_NAMES or word.isdigit():
            break
        result.append(f"{word} {result[-1]}")
    return result


def count_concepts(rows: Iterable[tuple[str, str, str]]) -> list[dict[str, str | int]]:
    """Rows of ``concept_counts.parquet`` from (phrase, head, concept), the most frequent first.

    ``words`` is how many words the name has; the rows with ``words == 1`` add up to the number of pairs.
    """
    counts: Counter[tuple[int, str]] = Counter()
    for row in rows:
        counts.update(enumerate(names(*row), start=1))
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"concept": name, "count": count, "words": length} for (length, name), count in ordered]
