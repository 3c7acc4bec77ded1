"""Counters of one shard or one build: where every row and every phrase went."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from curation.errors import Rejected

EXAMPLES_PER_REASON = 3
EXAMPLE_CHARS = 160


@dataclass
class Tally:
    """Law: ``rows_read == rows_kept + sum(row_reasons)`` and ``phrases == pairs + sum(phrase_reasons)``."""

    rows_read: int = 0
    rows_kept: int = 0
    phrases: int = 0
    pairs: int = 0
    row_reasons: Counter[str] = field(default_factory=Counter)
    phrase_reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def reject_row(self, rejection: Rejected, text: str) -> None:
        self.row_reasons[rejection.reason] += 1
        self._remember(rejection, text)

    def reject_phrase(self, rejection: Rejected, text: str) -> None:
        self.phrase_reasons[rejection.reason] += 1
        self._remember(rejection, text)

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

    def to_json(self) -> dict[str, Any]:
        return {
            "rows_read": self.rows_read,
            "rows_kept": self.rows_kept,
            "phrases": self.phrases,
            "pairs": self.pairs,
            "row_reasons": dict(sorted(self.row_reasons.items())),
            "phrase_reasons": dict(sorted(self.phrase_reasons.items())),
            "examples": dict(sorted(self.examples.items())),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Tally:
        counters = {name: Counter(data[name]) for name in ("row_reasons", "phrase_reasons")}
        return cls(**{**data, **counters})

    def _remember(self, rejection: Rejected, text: str) -> None:
        known = self.examples.setdefault(rejection.reason, [])
        if len(known) < EXAMPLES_PER_REASON:
            shown = f"{text[:EXAMPLE_CHARS]} ({rejection.detail[:EXAMPLE_CHARS]})" if rejection.detail else text
            known.append(shown[: 2 * EXAMPLE_CHARS])
