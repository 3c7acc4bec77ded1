"""What counts as a subject itself, to an encoder: learnt from references alone, before a picture was generated."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from umm_bench.errors import UserError
from umm_bench.methods import Case
from umm_bench.metrics.several.labels import HALF, LEAST_SPAN
from umm_bench.metrics.several.references import References, Seen

logger = logging.getLogger(__name__)

MISSED = 0.05  # of a subject's own pictures, those that would not be taken for it
MOST_CASES = 64


@dataclass
class Calibration:
    """Thresholds for what is kept (see `labels`), by how things are seen.

    Each picture of a subject, cut out as an inexact box would, is held against the subject's others and against those
    of its partner in a case; of all of these MISSED keep less than the threshold.
    """

    references: References
    cases: Sequence[Case]
    """The suite's, so that a threshold depends on no sample; what is calibrated on for a sample is its own case where
    there is none, or none of them can be read."""
    _found: dict[Seen, float | None] = field(default_factory=dict)

    def threshold(self, seen: Seen, case: Case) -> float:
        if seen not in self._found:
            kept = [value for other in self.cases for value in self._readable(other, seen)]
            self._found[seen] = found = float(np.quantile(kept, MISSED)) if kept else None
            if found is not None and found < HALF:
                logger.warning("the encoder hardly tells the suite's subjects apart: labels of pairs mean little")
        known = self._found[seen]
        return float(np.quantile(self.kept(case, seen), MISSED)) if known is None else known

    def _readable(self, case: Case, seen: Seen) -> list[float]:
        try:
            return self.kept(case, seen)
        except UserError as error:  # of a subject that nobody asked for, perhaps
            logger.warning("calibrating without %s: %s", case.id, error)
            return []

    def kept(self, case: Case, seen: Seen) -> list[float]:
        """What the pictures of a case's subjects keep, each against each other subject of the case."""
        matrix = self.references.matrix(case.subjects, seen)
        values: list[float] = []
        for i, subject in enumerate(case.subjects):
            own, off = self.references.of(subject, seen), self.references.off(subject, seen)
            cosines = off @ own.T  # [N, M, N]: of picture n cut the m-th way to each
            for n in range(len(own)):
                others = [k for k in range(len(own)) if k != n] or [n]
                like = cosines[n][:, others].mean(axis=1)
                for j in range(len(case.subjects)):
                    if j != i:
                        span = max(matrix[i, i] - matrix[i, j], LEAST_SPAN)
                        values += (1 - (matrix[i, i] - like) / span).tolist()
        return values
