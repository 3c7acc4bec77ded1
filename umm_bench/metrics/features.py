"""Features of pictures, computed once: kept on disk by the picture's content and by what computed them.

Nothing in the folder is needed: what is missing, damaged or of another encoder is computed again. An entry is a
safetensors file, `<encoder>/<content>.safetensors`, with the features and a digest of them; the name of one that is of
a part of the picture says of which.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from atomic import whole_file
from umm_bench.errors import UserError
from umm_bench.seeding import digest

logger = logging.getLogger(__name__)

LIMIT_BYTES = 4 * 2**30
"""Of a folder. Beyond it the entries that were not used for longest go, down to four fifths of it."""
MEMORY_BYTES = 256 * 2**20
"""Of what one encoder has in memory."""


class FeatureCache:
    """A folder of features. Processes may share it: an entry is there whole or not at all."""

    def __init__(self, folder: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes
        self._bytes: int | None = None  # known from the first entry that is written on

    def read(self, encoder: str, content: str) -> np.ndarray | None:
        """The features, or None where they are not there, are damaged or belong to something else."""
        path = self._path(encoder, content)
        try:
            entry = load(path.read_bytes())
            features, found = entry["features"], entry["digest"].tobytes()
            os.utime(path)  # what was used last is kept longest
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            logger.warning("%s cannot be read and is computed again: %s", path, error)
            return None
        if found != _checksum(encoder, content, features):
            logger.warning("%s is damaged and is computed again", path)
            return None
        return features

    def write(self, encoder: str, content: str, features: np.ndarray) -> None:
        """A folder that cannot be written to costs time, not the run."""
        features = np.ascontiguousarray(features)
        digest = np.frombuffer(_checksum(encoder, content, features), np.uint8)
        data, path = save({"features": features, "digest": digest}), self._path(encoder, content)
        try:
            with whole_file(path) as unfinished:
                unfinished.write_bytes(data)
            self._count(len(data))
        except OSError as error:
            logger.warning("features are not kept: %s", error)

    def _path(self, encoder: str, content: str) -> Path:
        return self.folder / encoder / f"{content}.safetensors"

    def _count(self, written: int) -> None:
        if self._bytes is None:
            self._bytes = sum(size for _, size, _ in self._entries())
        else:
            self._bytes += written
        if self._bytes > self.limit_bytes:
            for _, size, path in sorted(self._entries()):
                if self._bytes <= self.limit_bytes * 0.8:
                    break
                path.unlink(missing_ok=True)
                self._bytes -= size

    def _entries(self) -> Iterator[tuple[int, int, Path]]:
        """When each was last used, its bytes, and where it is; those of killed writers too."""
        for path in self.folder.rglob("*.*"):
            try:
                found = path.stat()
            except FileNotFoundError:  # another process has just taken it away
                continue
            yield found.st_mtime_ns, found.st_size, path


_kept: ContextVar[FeatureCache | None] = ContextVar("kept", default=None)


@contextmanager
def kept_in(folder: Path) -> Iterator[FeatureCache]:
    """Within the block encoders keep their features in `folder`; elsewhere only in memory."""
    cache = FeatureCache(folder)
    token = _kept.set(cache)
    try:
        yield cache
    finally:
        _kept.reset(token)


class Memory:
    """What one encoder has computed of pictures, in memory and in the folder that is open."""

    def __init__(self, encoder: str) -> None:
        """`encoder` names all that features depend on beside the picture, in characters fit for a folder's name."""
        self.encoder = encoder
        self._arrays: OrderedDict[str, np.ndarray] = OrderedDict()
        self._bytes = 0

    def of(self, picture: Path, compute: Callable[[], np.ndarray], part: str = "") -> np.ndarray:
        """The features of a picture's content, or of a part of it; `compute()` where nobody has them. UserError where
        it is not there.
        """
        content = content_digest(picture) + (f"-{digest(part, length=8)}" if part else "")
        if content in self._arrays:
            self._arrays.move_to_end(content)
            return self._arrays[content]
        cache = _kept.get()
        features = cache.read(self.encoder, content) if cache else None
        if features is None:
            features = compute()
            if cache:
                cache.write(self.encoder, content, features)
        self._arrays[content] = features
        self._bytes += features.nbytes
        while self._bytes > MEMORY_BYTES:
            self._bytes -= self._arrays.popitem(last=False)[1].nbytes
        return features


def content_digest(picture: Path) -> str:
    """Of all bytes of a file, read again when it has changed. UserError where it is not there."""
    try:
        found = picture.stat()
    except FileNotFoundError as error:
        raise UserError(f"no image file at {picture}") from error
    return _content(picture, found.st_mtime_ns, found.st_size, found.st_ino)


@lru_cache(maxsize=65536)
def _content(picture: Path, *changed: int) -> str:
    with picture.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:32]


def _checksum(encoder: str, content: str, features: np.ndarray) -> bytes:
    named = f"{encoder}\0{content}\0{features.dtype.str}\0{features.shape}\0".encode()
    return hashlib.sha256(named + np.ascontiguousarray(features).tobytes()).digest()
