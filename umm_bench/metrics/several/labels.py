"""What became of each subject, from cosines alone.

Of subject i and another one j, with s the mean cosine of i's crop to a subject's references, r_ij that of i's
references to j's, and r_ii that of i's references to each other:

    kept   = 1 - (r_ii - s_i) / (r_ii - r_ij)      1 for a picture of i itself, 0 for one that is like i as j is
    gained = 1 - (r_jj - s_j) / (r_jj - r_ij)      0 for a picture of i itself, 1 for one of j

A crop that is a mixture of the two has kept + gained = 1; one of something else has neither. i turns into j where more
is gained than kept; it is taken for j where, besides, the two together are half of what is there. Of two subjects of
one class that is not enough, as one can be just like the other there: what is gained must be what pictures of j keep.
Hence, in this order:

    missing     i's class is found nowhere
    right       kept is what pictures of i itself keep (a threshold from the references, see `calibration`)
    swap        each turns into the other, and one of them is taken for it
    drift       kept and gained are less than half of what is there, or nothing is gained
    dominance   i is taken for j; also where i's class is found nowhere, and a second j is
    blending    what remains: something of i, and something of j

j is the subject that i's crop is most like, for what i's own pictures have of that one. The idea of comparing with the
references' own matrix is that of D&C (MuDI, 2404.04243).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LABELS = ("right", "drift", "swap", "dominance", "blending", "missing")
HALF = 0.5
LEAST_SPAN = 0.01  # two subjects whose references are no further apart than this cannot be told apart


@dataclass(frozen=True)
class Crop:
    """What a place looks like: cosines to the subjects' references [K], and theirs to each other [K, K] at its size.

    `threshold` is what pictures of the subjects themselves keep at that size.
    """

    row: np.ndarray
    references: np.ndarray
    threshold: float

    def kept(self, i: int, j: int) -> float:
        """1 for a picture of i itself, 0 for one that is like i as j's are."""
        span = max(self.references[i, i] - self.references[i, j], LEAST_SPAN)
        return float(1 - (self.references[i, i] - self.row[i]) / span)

    def is_right(self, i: int) -> bool:
        return all(self.kept(i, j) >= self.threshold for j in range(len(self.row)) if j != i)

    def read(self, i: int, nouns: Sequence[str]) -> Reading:
        """What it shows where subject i was to be."""
        j = max((j for j in range(len(self.row)) if j != i), key=lambda j: self.kept(j, i))
        kept, gained = self.kept(i, j), self.kept(j, i)
        right = self.is_right(i)
        turned = not right and gained > max(kept, 0.0)
        explained = max(kept, 0.0) + max(gained, 0.0) >= HALF
        taken = turned and explained and (nouns[i] != nouns[j] or gained >= self.threshold)
        return Reading(j, kept, gained, float(self.row[i] - self.row[j]), right, turned, taken, explained)


@dataclass(frozen=True)
class Reading:
    """A crop against its own subject and its `rival`, the subject's number; the words are those of this module."""

    rival: int
    kept: float
    gained: float
    margin: float
    right: bool
    turned: bool
    taken: bool
    explained: bool


@dataclass(frozen=True)
class Verdict:
    """A label, and where there is a crop the rival's number, what was kept and gained, and the margin: the crop's
    cosine to its own subject minus that to the rival.
    """

    label: str
    rival: int | None = None
    kept: float | None = None
    gained: float | None = None
    margin: float | None = None


def label_subjects(
    crops: Sequence[Crop | None], nouns: Sequence[str], doubled: Sequence[int | None] | None = None
) -> list[Verdict]:
    """One verdict a subject, in order.

    Args:
        crops: what was found for each of K >= 2 subjects, None for nothing.
        nouns: their classes.
        doubled: for each subject that was not found, the number of another that was found once more, or None.
    """
    twice = doubled or [None] * len(crops)
    readings = [None if crop is None else crop.read(i, nouns) for i, crop in enumerate(crops)]
    verdicts = []
    for i, own in enumerate(readings):
        if own is None:
            rival = twice[i]
            verdicts.append(Verdict("missing") if rival is None else Verdict("dominance", rival=rival))
            continue
        label = _label(own, readings[own.rival], i)
        verdicts.append(Verdict(label, own.rival, own.kept, own.gained, own.margin))
    return verdicts


def _label(own: Reading, rival: Reading | None, i: int) -> str:
    if own.right:
        return "right"
    if rival is not None and rival.rival == i and own.turned and rival.turned and (own.taken or rival.taken):
        return "swap"
    if not own.explained or own.gained <= 0:
        return "drift"
    return "dominance" if own.taken else "blending"
