"""What all detectors of transformers share: passes that fit into memory, and boxes from their outputs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from curation.records import Box

log = logging.getLogger(__name__)

J = TypeVar("J")
F = TypeVar("F")

# Of one phrase, before any suppression: a detector with a query an object gives few that matter, one with a prediction
# at every patch gives many of each object.
MAX_BOXES = 32
MAX_DENSE_BOXES = 256


class BatchedGrounder:
    """Counts how many jobs fit into one pass."""

    _batch_size: int

    def _in_batches(self, jobs: Sequence[J], detect: Callable[[Sequence[J]], Sequence[F]]) -> Iterator[tuple[J, F]]:
        """Each job with what was found for it. Out of memory, a batch is halved and the later ones stay small.

        Raises:
            RuntimeError: any other error, and out of memory with a single job.
        """
        start = 0
        while start < len(jobs):
            batch = jobs[start : start + self._batch_size]
            try:
                found = detect(batch)
            except RuntimeError as error:  # on a GPU torch.OutOfMemoryError, which is one
                if not is_out_of_memory(error) or len(batch) == 1:
                    raise
                self._batch_size = len(batch) // 2
                torch.cuda.empty_cache()
                log.warning("out of memory: going on with batches of %d", self._batch_size)
                continue
            yield from zip(batch, found, strict=True)
            start += len(batch)


def best(scores_Q: torch.Tensor, threshold: float, most: int) -> torch.Tensor:
    """Indices of the queries at the threshold or above, best first, at most so many."""
    order = scores_Q.argsort(descending=True, stable=True)[:most]
    return order[scores_Q[order] >= threshold]


def to_boxes(scores_Q: torch.Tensor, boxes_Q4: torch.Tensor, threshold: float, most: int) -> list[Box]:
    """Boxes of one phrase, best first, from (centre, size) relative to the image."""
    order = best(scores_Q, threshold, most)
    boxes = []
    for score, (x, y, w, h) in zip(scores_Q[order].tolist(), boxes_Q4[order].tolist(), strict=True):
        boxes.append(clipped(x - w / 2, y - h / 2, x + w / 2, y + h / 2, score))
    return boxes


def clipped(x0: float, y0: float, x1: float, y1: float, score: float) -> Box:
    x0, y0, x1, y1 = (min(max(edge, 0.0), 1.0) for edge in (x0, y0, x1, y1))
    return Box(x0, y0, x1, y1, score)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Also the allocator of the CPU, whose error has no class of its own."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "can't allocate memory" in text
