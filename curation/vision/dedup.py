"""Duplicates: exact by the bytes' digest, near by perceptual hash (imagehash's 64-bit pHash), semantic by embedding."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image

from curation.errors import UserError
from curation.vision.semantic import SemanticIndex

HASH_BITS = 64


def content_hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def perceptual_hash(image: Image.Image) -> str:
    """64-bit pHash as 16 hexadecimal digits."""
    import imagehash

    return str(imagehash.phash(image))


class DuplicateIndex:
    """Images seen so far. Near look-ups do not scan.

    Of n // 2 + 1 bands of a hash, one has at most one of n differing bits, so that each is looked up as it is and with
    each of its bits turned (multi-index hashing, 1307.2982): wide bands have few hashes that only look alike.

    Args:
        max_bits: greatest Hamming distance that still counts as a duplicate; -1 finds exact ones only.
        min_cosine: least cosine of two embeddings that counts as a duplicate; None looks at no embedding.

    Raises:
        UserError: ``min_cosine`` without faiss.
    """

    def __init__(self, max_bits: int, min_cosine: float | None = None) -> None:
        self.max_bits = max_bits
        self._digests: set[str] = set()
        self._edges = _edges(max_bits)
        self._bands: list[dict[int, list[int]]] = [defaultdict(list) for _ in self._edges]
        self._semantic = SemanticIndex(min_cosine) if min_cosine is not None else None

    @classmethod
    def of_build(cls, folder: Path, max_bits: int, min_cosine: float | None = None) -> Self:
        """The images of a finished build.

        Raises:
            UserError: no finished build is there, or one without embeddings where they are to be compared.
        """
        import pyarrow.parquet as pq

        index = cls(max_bits, min_cosine)
        files = sorted((folder / "data").glob("*.parquet"))
        if not files:
            raise UserError(f"--dedup-against {folder}: no build there")
        columns = ["sha256", "phash", *(["embedding"] if min_cosine is not None else [])]
        for file in files:
            for batch in pq.ParquetFile(file).iter_batches(columns=columns):
                for row in batch.to_pylist():
                    if index.has_bytes(row["sha256"]):
                        continue
                    index.add_bytes(row["sha256"])
                    index.add_near(row["phash"])
                    if min_cosine is not None and row["embedding"] is None:
                        raise UserError(f"--dedup-against {folder}: made without --semantic-duplicates")
                    index.add_similar(row.get("embedding"))
        return index

    def has_bytes(self, digest: str) -> bool:
        return digest in self._digests

    def has_near(self, phash: str) -> bool:
        value = int(phash, 16)
        return any(
            (value ^ other).bit_count() <= self.max_bits
            for buckets, band, (low, high) in zip(self._bands, self._split(value), self._edges, strict=True)
            for turned in _TURNED[: 1 + high - low]
            for other in buckets.get(band ^ turned, ())
        )

    def has_similar(self, embedding: tuple[float, ...] | None) -> bool:
        """False without an embedding or a threshold."""
        if self._semantic is None or embedding is None:
            return False
        return self._semantic.has(np.array(embedding, np.float32))

    def add_bytes(self, digest: str) -> None:
        self._digests.add(digest)

    def add_near(self, phash: str) -> None:
        value = int(phash, 16)
        for buckets, band in zip(self._bands, self._split(value), strict=True):
            buckets[band].append(value)

    def add_similar(self, embedding: tuple[float, ...] | None) -> None:
        if self._semantic is not None and embedding is not None:
            self._semantic.add(np.array(embedding, np.float32))

    def _split(self, value: int) -> list[int]:
        return [(value >> low) & ((1 << (high - low)) - 1) for low, high in self._edges]


_TURNED = (0, *(1 << bit for bit in range(HASH_BITS)))  # no bit of a band, or one


def _edges(max_bits: int) -> list[tuple[int, int]]:
    """Bands of a hash, from a bit to before another."""
    count = max_bits // 2 + 1
    return list(pairwise(HASH_BITS * i // count for i in range(count + 1))) if count else []
