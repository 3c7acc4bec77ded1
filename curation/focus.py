"""Concepts to mine before all else: which phrases name one, and how many pairs of each are wanted.

The file is plain text: a concept a line, in the singular, with its own quota after a tab or a comma; # begins a
comment's line.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from curation.config import BuildConfig
from curation.errors import UserError
from curation.language.compounds import with_hyphens
from curation.language.concepts import MAX_WORDS, WORD, names

NAME = ("phrase", "head", "concept", "noun")
Name = tuple[str, str, str, str]
"""What these columns say of a pair."""


@dataclass(frozen=True)
class Focus:
    """Each concept's quota of pairs in the whole build; None is no bound."""

    quotas: Mapping[str, int | None]

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(sorted(self.quotas.items())).encode()).hexdigest()[:16]

    def named(self, phrase: str, head: str, concept: str, noun: str) -> str | None:
        """The longest concept that a phrase names: that of "a white polar bear" is polar bear, be bear one as well."""
        spoken = {*names(phrase, head, concept), *names(phrase, head, head.lower()), noun}
        return max(self.quotas.keys() & set(map(spelled, spoken)), key=lambda name: (len(name), name), default=None)


@dataclass
class Quota:
    """Counts the pairs of each concept, in their order, and turns away those that are too many."""

    focus: Focus
    taken: Counter[str] = field(default_factory=Counter)

    def is_full(self, concept: str) -> bool:
        bound = self.focus.quotas[concept]
        return bound is not None and self.taken[concept] >= bound

    def choose(self, pairs: Sequence[Name]) -> list[bool]:
        """Which pairs of one row are wanted. One whose concepts all have enough is not there for its other phrases."""
        concepts = [self.focus.named(*pair) for pair in pairs]
        wanted = []
        for concept in concepts:
            wanted.append(concept is None or not self.is_full(concept))
            if concept is not None and wanted[-1]:
                self.taken[concept] += 1
        only_others = any(concepts) and not any(w and c for w, c in zip(wanted, concepts, strict=True))
        return [False] * len(pairs) if only_others else wanted


def spelled(name: str) -> str:
    return " ".join(with_hyphens(name.lower()).replace("-", " ").split())


def read_focus(config: BuildConfig) -> Focus | None:
    """What ``config.focus`` names, with ``config.focus_quota`` for lines without one of their own; None without it.

    Raises:
        UserError: no such file, a line that is no concept or no quota, a concept twice, or none at all.
    """
    if config.focus is None:
        return None
    path = Path(config.focus)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "no UTF-8 text"
        raise UserError(f"--focus {path}: {why}; name a file with one concept a line") from None
    quotas: dict[str, int | None] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            concept, quota = read_line(line, f"--focus {path}, line {number}")
            if concept in quotas:
                raise UserError(f"--focus {path}, line {number}: {concept} is there twice")
            quotas[concept] = config.focus_quota if quota is None else quota
    if not quotas:
        raise UserError(f"--focus {path} names no concept; write one a line")
    return Focus(quotas)


def read_line(line: str, where: str) -> tuple[str, int | None]:
    """Raises `UserError` where it is no concept, or its quota is no whole number from 1."""
    written, *quota = line.replace("\t", ",", 1).split(",", 1)
    concept = spelled(written)
    found = concept.split()
    if not found or not all(WORD.fullmatch(word) for word in found):
        raise UserError(f"{where}: {written.strip()[:40]!r} is no concept; write words, and a quota after a comma")
    if len(found) > MAX_WORDS and "of" not in found:
        raise UserError(f"{where}: {concept[:40]!r} has more than {MAX_WORDS} words; write the noun that it is")
    if not quota or not quota[0].strip():
        return concept, None
    digits = quota[0].strip()
    if not (digits.isascii() and digits.isdigit() and 0 < len(digits) < 19 and int(digits)):
        raise UserError(f"{where}: quota {digits[:40]!r} is no whole number from 1")
    return concept, int(digits)
