"""Which things a build is for: a file of concepts, one a line, each with a quota where it has one of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from curation.errors import Rejected, UserError
from curation.language.concepts import names
from curation.records import Phrase

MOST = 10**9


def read_focus(path: Path) -> str:
    """The file's concepts as a configuration keeps them, so that a worker needs no file: "concept TAB quota" a line.

    Text from a "#" on is a remark. A quota follows a tab or a comma; without one, it is ``focus_quota``'s to say.

    Raises:
        UserError: no such file, it is no text, a line is not as it should be, or it names nothing.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text in UTF-8"
        raise UserError(f"--focus {path}: cannot be read ({reason})") from None
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        concept, _, quota = line.partition("#")[0].replace(",", "\t").partition("\t")
        concept, quota = " ".join(concept.lower().split()), quota.strip()
        if not concept and not quota:
            continue
        if not concept or (quota and not (quota.isdecimal() and 1 <= int(quota[:12]) <= MOST)):
            raise UserError(f"--focus {path}, line {number}: write a concept, or concept TAB quota, not {line[:60]!a}")
        lines.append(f"{concept}\t{int(quota[:12])}" if quota else concept)
    if not lines:
        raise UserError(f"--focus {path} names no concept; write one a line")
    return "".join(f"{line}\n" for line in dict.fromkeys(lines))


class Focus:
    """Lets through the rows of one shard that name what is asked for, of each concept no more than its quota.

    Quotas are of a shard, so that shards can be mined in any order and by any worker with the same rows.
    """

    def __init__(self, text: str, quota: int | None) -> None:
        """``text`` as `read_focus` gives it; ``quota`` for concepts without one, None is no bound."""
        self._left: dict[str, float] = {}
        for line in text.splitlines():
            concept, _, own = line.partition("\t")
            self._left[concept] = int(own) if own else float("inf") if quota is None else quota
        self._taken: Counter[str] = Counter()
        self._let_through: set[str] = set()

    def check(self, key: str, phrases: Iterable[Phrase]) -> None:
        """Counts a row, once however often it is asked about.

        Raises:
            Rejected: it names nothing that is asked for, or only what there is enough of.
        """
        if key in self._let_through:
            return
        said = {name for phrase in phrases for name in names(phrase.text, phrase.head, phrase.concept)}
        wanted = [concept for concept in self._left if concept in said]
        if not wanted:
            raise Rejected("not_in_focus")
        short = [concept for concept in wanted if self._taken[concept] < self._left[concept]]
        if not short:
            raise Rejected("focus_quota_reached", ", ".join(wanted))
        self._taken.update(wanted)
        self._let_through.add(key)
