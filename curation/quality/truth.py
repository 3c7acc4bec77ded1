"""Mined pairs against a corpus' truth: what `curation.evaluate` counts as right, and as found."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from curation.errors import UserError
from curation.records import Box, Pair

TRUTH = Path("truth") / "truth.parquet"
MIN_IOU = 0.5
# Rows that a miner should not keep, by what is wrong with them: their objects are not asked for in recall.
UNWANTED = frozenset({"truncated", "corrupt", "empty_image", "nsfw", "watermark", "duplicate", "near_duplicate"})


@dataclass(frozen=True)
class TrueObject:
    """``phrase`` are the words that the caption was made with; ``named`` says whether it has them."""

    concept: str
    phrase: str
    box: Box
    named: bool


@dataclass(frozen=True)
class TrueRow:
    """``dirt`` says what is wrong with the row, empty for a clean one."""

    dirt: str
    objects: tuple[TrueObject, ...]


@dataclass(frozen=True)
class Score:
    """``right`` of ``mined`` pairs; ``found`` of ``named`` objects."""

    mined: int
    right: int
    named: int
    found: int

    @property
    def precision(self) -> float:
        return self.right / self.mined if self.mined else float("nan")

    @property
    def standard_error(self) -> float:
        """Of the precision, as a binomial share."""
        return math.sqrt(self.precision * (1 - self.precision) / self.mined) if self.mined else float("nan")

    @property
    def recall(self) -> float:
        return self.found / self.named if self.named else float("nan")


def read_truth(corpus: Path) -> dict[str, TrueRow]:
    """By row key. Raises `UserError` where the corpus has no truth."""
    import pyarrow.parquet as pq

    if not (corpus / TRUTH).is_file():
        raise UserError(f"--input {corpus}: no {TRUTH} there; name a corpus whose truth is known")
    return {
        row["key"]: TrueRow(
            row["dirt"],
            tuple(TrueObject(o["concept"], o["phrase"], to_box(o["box"], 1.0), o["named"]) for o in row["objects"]),
        )
        for row in pq.read_table(corpus / TRUTH).to_pylist()
    }


def to_box(xyxy: Sequence[float], score: float) -> Box:
    x0, y0, x1, y1 = xyxy
    return Box(x0, y0, x1, y1, score)


def names(phrase: str, thing: TrueObject) -> bool:
    return re.search(rf"\b{re.escape(thing.concept.lower())}\b", phrase.lower()) is not None


def match(pair: Pair, objects: Sequence[TrueObject]) -> int | None:
    """Which object the pair is right about. Of two of a kind, a phrase in the caption's own words means its own."""
    own = [i for i, thing in enumerate(objects) if thing.named and thing.phrase.lower() == pair.phrase.lower()]
    meant = own or [i for i, thing in enumerate(objects) if names(pair.phrase, thing)]
    overlaps = {i: objects[i].box.iou(to_box(pair.box, pair.score)) for i in meant}
    best = max(overlaps, key=lambda i: overlaps[i], default=None)
    return best if best is not None and overlaps[best] >= MIN_IOU else None


def score(pairs: Sequence[Pair], truth: Mapping[str, TrueRow]) -> Score:
    """Pairs against the truth; an object that several pairs show is found once."""
    matches = [(pair.key, match(pair, truth[pair.key].objects)) for pair in pairs if pair.key in truth]
    right = [(key, index) for key, index in matches if index is not None]
    asked = {
        (key, index)
        for key, row in truth.items()
        if row.dirt not in UNWANTED
        for index, thing in enumerate(row.objects)
        if thing.named
    }
    return Score(mined=len(matches), right=len(right), named=len(asked), found=len(asked & set(right)))


def score_by_dirt(pairs: Sequence[Pair], truth: Mapping[str, TrueRow]) -> dict[str, Score]:
    kinds = sorted({row.dirt for row in truth.values()})
    return {kind: score(pairs, {key: row for key, row in truth.items() if row.dirt == kind}) for kind in kinds}
