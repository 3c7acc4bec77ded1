"""Duplicates: exact by the bytes' digest, near by perceptual hash (imagehash's pHash, 64 bits)."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from itertools import pairwise

from PIL import Image

HASH_BITS = 64


def content_hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def perceptual_hash(image: Image.Image) -> str:
    """64-bit pHash as 16 hexadecimal digits."""
    import imagehash

    return str(imagehash.phash(image))


class DuplicateIndex:
    """Images seen so far. Near look-ups do not scan: hashes within n bits agree in one of n + 1 bands.

    Args:
        max_bits: greatest Hamming distance that still counts as a duplicate; -1 finds exact ones only.
    """

    def __init__(self, max_bits: int) -> None:
        self.max_bits = max_bits
        self._digests: set[str] = set()
        self._bands: list[dict[int, list[int]]] = [defaultdict(list) for _ in range(max_bits + 1)]

    def has_bytes(self, digest: str) -> bool:
        return digest in self._digests

    def has_near(self, phash: str) -> bool:
        value = int(phash, 16)
        return any(
            (value ^ other).bit_count() <= self.max_bits
            for buckets, band in zip(self._bands, self._split(value), strict=True)
            for other in buckets.get(band, ())
        )

    def add_bytes(self, digest: str) -> None:
        self._digests.add(digest)

    def add_near(self, phash: str) -> None:
        value = int(phash, 16)
        for buckets, band in zip(self._bands, self._split(value), strict=True):
            buckets[band].append(value)

    def _split(self, value: int) -> list[int]:
        count = self.max_bits + 1
        edges = [HASH_BITS * i // count for i in range(count + 1)] if count else []
        return [(value >> low) & ((1 << (high - low)) - 1) for low, high in pairwise(edges)]
