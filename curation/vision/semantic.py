"""Duplicates by what a picture shows: embeddings that are nearly parallel (faiss, extra ``semantic``)."""

from __future__ import annotations

import numpy as np

from curation.errors import UserError


class SemanticIndex:
    """Exact search over unit vectors: time grows with the number kept, memory by 4 bytes a component.

    Args:
        min_cosine: from which on two embeddings are one picture's.

    Raises:
        UserError: faiss is not installed.
    """

    def __init__(self, min_cosine: float) -> None:
        try:
            import faiss
        except ImportError:
            raise UserError("--semantic-duplicates needs faiss: pip install 'umm-bench[semantic]'") from None
        self._new_index = faiss.IndexFlatIP
        self._index: faiss.IndexFlatIP | None = None
        self._min_cosine = min_cosine

    def has(self, embedding_D: np.ndarray) -> bool:
        if self._index is None:
            return False
        cosines_11, _ = self._index.search(np.ascontiguousarray(embedding_D[None], np.float32), 1)
        return bool(cosines_11[0, 0] >= self._min_cosine)

    def add(self, embedding_D: np.ndarray) -> None:
        if self._index is None:
            self._index = self._new_index(len(embedding_D))
        self._index.add(np.ascontiguousarray(embedding_D[None], np.float32))
