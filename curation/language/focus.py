"""Which things a build is for: a file of concepts, one a line, and how many pairs of each are wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from curation.config import BuildConfig
from curation.errors import UserError
from curation.language.compounds import with_hyphens
from curation.language.concepts import MAX_WORDS, names

MOST = 10**9

NAME = ("phrase", "head", "concept", "noun")
Name = tuple[str, str, str, str]
"""What these columns say of a pair."""


@dataclass(frozen=True)
class Focus:
    """Each concept's quota of pairs in the whole build; None is no bound."""

    quotas: Mapping[str, int | None]

    @classmethod
    def of(cls, config: BuildConfig) -> Self | None:
        """None where a build is for everything. ``config.focus`` is text as `read_focus` gives it."""
        if config.focus is None:
            return None
        lines = [line.partition("\t") for line in config.focus.splitlines()]
        return cls({concept: int(own) if own else config.focus_quota for concept, _, own in lines})

    def named(self, phrase: str, head: str, concept: str, noun: str) -> str | None:
        """The longest concept that a phrase names: that of "a white polar bear" is polar bear, be bear one as well."""
        spoken = {*names(phrase, head, concept), *names(phrase, head, head.lower()), noun}
        return max(self.quotas.keys() & set(map(spelled, spoken)), key=lambda name: (len(name), name), default=None)


@dataclass
class Quota:
    """Counts the pairs of each concept, in their order, and turns away those that are too many.

    ``chunk`` is the one that is being counted, ``full`` the one that filled a concept's quota.
    """

    focus: Focus
    taken: Counter[str] = field(default_factory=Counter)
    chunk: int = -1
    full: dict[str, int] = field(default_factory=dict)

    def is_full(self, concept: str, before: int | None = None) -> bool:
        """Whether it was before chunk number ``before``; None is by now."""
        return concept in self.full and (before is None or self.full[concept] < before)

    def choose(self, pairs: Sequence[Name]) -> list[bool]:
        """Which pairs of one row are wanted. One whose concepts all have enough is not there for its other phrases."""
        concepts = [self.focus.named(*pair) for pair in pairs]
        wanted = []
        for concept in concepts:
            wanted.append(concept is None or not self.is_full(concept))
            if concept is not None and wanted[-1]:
                self.taken[concept] += 1
                if self.taken[concept] == self.focus.quotas[concept]:
                    self.full[concept] = self.chunk
        only_others = any(concepts) and not any(w and c for w, c in zip(wanted, concepts, strict=True))
        return [False] * len(pairs) if only_others else wanted


def spelled(name: str) -> str:
    return " ".join(with_hyphens(name.lower()).replace("-", " ").split())


def read_focus(path: Path) -> str:
    """The file's concepts as a configuration keeps them, so that a worker needs no file: "concept TAB quota" a line.

    Text from a "#" on is a remark. A quota follows a tab or a comma; without one, it is ``focus_quota``'s to say.

    Raises:
        UserError: no such file, it is no text, a line is not as it should be, a concept is there twice, or none is.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = (error.strerror or "no file") if isinstance(error, OSError) else "not text in UTF-8"
        raise UserError(f"--focus {path}: cannot be read ({reason})") from None
    lines: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        where = f"--focus {path}, line {number}"
        written, _, quota = line.partition("#")[0].replace(",", "\t").partition("\t")
        concept, quota = spelled(written), quota.strip()
        if not concept and not quota:
            continue
        if not concept or (quota and not (quota.isdecimal() and 1 <= int(quota[:12]) <= MOST)):
            raise UserError(f"{where}: write a concept, or concept TAB quota, not {line[:60]!a}")
        if len(concept.split()) > MAX_WORDS and " of " not in concept:
            raise UserError(
                f"{where}: {concept[:60]!a} has more than {MAX_WORDS} words; write the noun without the rest"
            )
        if concept in lines:
            raise UserError(f"{where}: {concept[:60]!a} is there twice")
        lines[concept] = f"{concept}\t{int(quota[:12])}" if quota else concept
    if not lines:
        raise UserError(f"--focus {path} names no concept; write one a line")
    return "".join(f"{line}\n" for line in lines.values())
