"""Counters of one shard or one build: where every row and every phrase went, with an example or two."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from PIL import Image

from curation.errors import Rejected, UserError
from curation.vision.images import thumbnail

EXAMPLES_PER_REASON = 3
EXAMPLE_CHARS = 160
EXAMPLE_PIXELS = 112
# These rows were refused for what their pictures show.
UNSHOWN = frozenset({"flagged_nsfw", "unsafe_score", "safety_unreadable"})

# Gives the picture of a row for its thumbnail, None where it cannot be decoded; called only for a row that is kept
# as an example.
Picture = Callable[[], Image.Image | None]


@dataclass(frozen=True)
class Example:
    """What one refused row or phrase said, and its picture (base64 of a small JPEG)."""

    text: str
    picture: str | None = None


@dataclass
class Tally:
    """Law: ``rows_read == rows_kept + sum(row_reasons)`` and ``phrases == pairs + sum(phrase_reasons)``."""

    rows_read: int = 0
    rows_kept: int = 0
    phrases: int = 0
    pairs: int = 0
    row_reasons: Counter[str] = field(default_factory=Counter)
    phrase_reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Example]] = field(default_factory=dict)
    # How many examples of a reason there are; tallies that will be added up share it, so that none makes surplus ones.
    given: Counter[str] = field(default_factory=Counter, compare=False, repr=False)

    def reject_row(self, rejection: Rejected, text: str, picture: Picture | None = None) -> None:
        self.row_reasons[rejection.reason] += rejection.rows
        self._remember(rejection, text, picture)

    def reject_phrase(self, rejection: Rejected, text: str, picture: Picture | None = None) -> None:
        self.phrase_reasons[rejection.reason] += 1
        self._remember(rejection, text, picture)

    def add(self, other: Tally) -> None:
        self.rows_read += other.rows_read
        self.rows_kept += other.rows_kept
        self.phrases += other.phrases
        self.pairs += other.pairs
        self.row_reasons.update(other.row_reasons)
        self.phrase_reasons.update(other.phrase_reasons)
        for reason, texts in other.examples.items():
            known = self.examples.setdefault(reason, [])
            known.extend(texts[: EXAMPLES_PER_REASON - len(known)])

    def check(self, where: str, rows: int | None = None) -> None:
        """
        Args:
            rows: how many there were to read, where that is known.

        Raises:
            UserError: the law does not hold, or rows are missing.
        """
        placed = self.rows_kept + self.row_reasons.total()
        if not self.rows_read == placed == (placed if rows is None else rows):
            there = "" if rows is None else f" of {rows} there"
            raise UserError(
                f"{where}: {self.rows_read} rows{there} were read, and {placed} were kept or have a reason; the input "
                "changed during the build, or this is a bug to report. Nothing was finished: choose another --output"
            )
        phrases = self.pairs + self.phrase_reasons.total()
        if self.phrases != phrases:
            raise UserError(
                f"{where}: {self.phrases} phrases were found, and {phrases} were kept or have a reason: a bug to report"
            )

    def to_json(self) -> dict[str, Any]:
        return {
            **self.counts(),
            "examples": {reason: [asdict(e) for e in found] for reason, found in sorted(self.examples.items())},
        }

    def counts(self) -> dict[str, Any]:
        return {
            "rows_read": self.rows_read,
            "rows_kept": self.rows_kept,
            "phrases": self.phrases,
            "pairs": self.pairs,
            "row_reasons": dict(sorted(self.row_reasons.items())),
            "phrase_reasons": dict(sorted(self.phrase_reasons.items())),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Tally:
        """Of `to_json`, or of `counts`, which has no examples."""
        counters = {name: Counter(data[name]) for name in ("row_reasons", "phrase_reasons")}
        examples = {reason: [Example(**e) for e in found] for reason, found in data.get("examples", {}).items()}
        return cls(**{**data, **counters, "examples": examples})

    def _remember(self, rejection: Rejected, text: str, picture: Picture | None) -> None:
        if self.given[rejection.reason] == EXAMPLES_PER_REASON:
            return
        self.given[rejection.reason] += 1
        shown = text[:EXAMPLE_CHARS] + (f" ({rejection.detail[:EXAMPLE_CHARS]})" if rejection.detail else "")
        image = picture() if picture is not None and rejection.reason not in UNSHOWN else None
        encoded = base64.b64encode(thumbnail(image, EXAMPLE_PIXELS)).decode() if image else None
        self.examples.setdefault(rejection.reason, []).append(Example(shown, encoded))
