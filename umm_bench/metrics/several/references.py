"""A subject's own pictures, cut out and made to be seen as it is in a generated one: as small, and decoded by a VAE.

A small crop is blurred once it is enlarged for the encoder, and that alone makes it unlike a large reference. So do the
traces that a generator's VAE leaves on all that it decodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from curation.records import Box
from curation.vision.crops import pixel_edges
from umm_bench.images import open_image, square
from umm_bench.methods import Subject
from umm_bench.metrics.embedding import VisionEncoder

SIDES = tuple(round(2 ** (step / 2)) for step in range(6, 17))  # 8, 11, 16, ... 256 pixels; nothing is seen larger
OFF = 0.1  # of a box's sides: how far off it may be
SHIFTS = ((OFF, 0.0), (-OFF, 0.0), (0.0, OFF), (0.0, -OFF))

Find = Callable[[Path, str], Box | None]
"""Where a picture has a thing of a class, None where it is not found."""


@dataclass(frozen=True)
class Seen:
    """How a thing is seen: `side` is that of SIDES nearest to its longer one, `decoded` whether by a VAE."""

    side: int
    decoded: bool = False


def side_of(crop: Image.Image) -> int:
    """Of SIDES, the nearest to a crop's longer side."""
    return min(SIDES, key=lambda side: abs(np.log(side / max(crop.size))))


def cut(image: Image.Image, box: Box) -> Image.Image:
    """The box's pixels, at least one."""
    left, top, right, bottom = pixel_edges(box, image.width, image.height)
    left, top = min(max(left, 0), image.width - 1), min(max(top, 0), image.height - 1)
    return image.crop((left, top, max(min(right, image.width), left + 1), max(min(bottom, image.height), top + 1)))


def shrunk(crop: Image.Image, side: int) -> Image.Image:
    """A picture whose longer side is at most `side`."""
    if max(crop.size) <= side:
        return crop
    width, height = (max(1, round(extent * side / max(crop.size))) for extent in crop.size)
    return crop.resize((width, height), Image.Resampling.BOX)


def embed(encoder: VisionEncoder, images: Sequence[Image.Image]) -> np.ndarray:
    """Unit embeddings [N, D] of RGB images in one batch."""
    import torch

    pixels = encoder.processor(list(images), return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        rows = encoder.pool(pixels.to(encoder.model.device)).float().cpu().numpy()
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


Decode = Callable[[Image.Image], Image.Image]


class References:
    """Unit embeddings of the crops of subjects' pictures, each computed once.

    A picture in which the class is not found is taken as a whole: that it shows the subject is known.
    """

    def __init__(self, encoder: VisionEncoder, find: Find, decode: Decode | None = None) -> None:
        self.encoder, self.find, self.decode = encoder, find, decode
        self._boxes = cache(self._box)
        self._decoded = lru_cache(maxsize=64)(self._decode)
        self._rows = cache(self._embed)

    def of(self, subject: Subject, seen: Seen) -> np.ndarray:
        """[N, D], one row a picture."""
        return np.stack([self._rows(path, subject.class_noun, seen)[0] for path in pictures(subject)])

    def off(self, subject: Subject, seen: Seen) -> np.ndarray:
        """[N, M, D]: each picture M times as an inexact box would cut it out."""
        return np.stack([self._rows(path, subject.class_noun, seen, True) for path in pictures(subject)])

    def like_each_other(self, subject: Subject, seen: Seen) -> float:
        """Mean cosine of two of its pictures; of one that is alone, to itself as `off` has it."""
        rows = self.of(subject, seen)
        if len(rows) == 1:
            return float((self.off(subject, seen)[0] @ rows[0]).mean())
        cosines = rows @ rows.T
        return float((cosines.sum() - np.trace(cosines)) / (len(rows) * (len(rows) - 1)))

    def matrix(self, subjects: tuple[Subject, ...], seen: Seen) -> np.ndarray:
        """Mean cosines of pictures of each to those of each, [K, K]; the diagonal without a picture and itself."""
        rows = [self.of(subject, seen) for subject in subjects]
        found = np.array([[float((one @ two.T).mean()) for two in rows] for one in rows])
        np.fill_diagonal(found, [self.like_each_other(subject, seen) for subject in subjects])
        return found

    def _box(self, path: Path, noun: str) -> Box:
        return self.find(path, noun) or Box(0.0, 0.0, 1.0, 1.0, 0.0)

    def _decode(self, path: Path, noun: str, side: int) -> Image.Image:
        """The picture, as small as its subject is seen, by way of the VAE."""
        assert self.decode is not None
        image, box = open_image(path), self._boxes(path, noun)
        large = max(cut(image, box).size)
        return self.decode(shrunk(image, max(1, round(max(image.size) * side / large))) if large > side else image)

    def _embed(self, path: Path, noun: str, seen: Seen, off: bool = False) -> np.ndarray:
        image, box = open_image(path), self._boxes(path, noun)
        if seen.decoded and self.decode:
            # as a whole: beside it a generated picture has its surroundings, too
            image = self._decoded(path, noun, seen.side)
        crops = [cut(image, box)]
        if off:
            crops = [cut(image, _moved(box, *shift)) for shift in SHIFTS]
        return embed(self.encoder, [square(shrunk(crop, seen.side)) for crop in crops])


def pictures(subject: Subject) -> tuple[Path, ...]:
    return (*subject.references, *subject.held_out)


def _moved(box: Box, right: float, down: float) -> Box:
    """A box moved by shares of its sides, kept inside the picture."""
    x, y = right * (box.x1 - box.x0), down * (box.y1 - box.y0)
    x0, y0, x1, y1 = (min(max(edge, 0.0), 1.0) for edge in (box.x0 + x, box.y0 + y, box.x1 + x, box.y1 + y))
    return Box(x0, y0, x1, y1, box.score)
