"""Files of a corpus, on this machine or behind any fsspec URL (s3://, gs://, hf://, https://, memory://)."""

from __future__ import annotations

import glob
import io
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from curation.errors import UserError
from curation.sources.names import is_hidden


@dataclass(frozen=True)
class File:
    """``url`` is for `open_file`; ``name`` is relative to the input, so that it holds no machine path."""

    url: str
    name: str
    size: int


def find_files(input: str) -> list[File]:
    """All files under a folder, the file, or the files that a glob names, in a fixed order; hidden ones left out.

    Links on this machine are followed, to wherever they lead: they are in what the user named. A link to nothing is
    there as well, for its row to say so; a folder that is reached twice is read once.

    Raises:
        UserError: nothing there, or no way to look there.
    """
    try:
        fs, path = fsspec.core.url_to_fs(input)
        if fs.isdir(path):
            root, sizes = path, walk(path) if isinstance(fs, LocalFileSystem) else sizes_of(fs.find(path, detail=True))
        elif fs.isfile(path):
            root, sizes = path.rpartition("/")[0], {path: int(fs.info(path).get("size") or 0)}
        else:
            found = fs.glob(path, detail=True)
            root, sizes = fixed_part(path), local_sizes(found) if isinstance(fs, LocalFileSystem) else sizes_of(found)
    except (OSError, ValueError, ImportError) as error:  # unknown protocol, missing package, refused
        raise UserError(f"--input {input}: {' '.join(str(error).split())}") from error
    if not sizes:
        raise UserError(f"--input {input}: no such file or folder, or an empty one")
    return [
        File(fs.unstrip_protocol(path), name.encode("utf-8", "backslashreplace").decode(), size)
        for path, size in sorted(sizes.items())
        for name in [path.removeprefix(root).lstrip("/")]
        if not is_hidden(name)
    ]


def sizes_of(found: dict[str, Any]) -> dict[str, int]:
    return {path: int(about.get("size") or 0) for path, about in found.items() if about["type"] == "file"}


def local_sizes(paths: Iterable[str]) -> dict[str, int]:
    """Of the files, and of the links that lead nowhere; folders, pipes and devices left out."""
    sizes = {}
    for path in paths:
        try:
            about = os.stat(path)
        except OSError:
            sizes[path] = 0
        else:
            if stat.S_ISREG(about.st_mode):
                sizes[path] = about.st_size
    return sizes


def walk(root: str) -> dict[str, int]:
    """
    Raises:
        OSError: a folder that cannot be looked into.
    """

    def refuse(error: OSError) -> None:
        raise error

    sizes: dict[str, int] = {}
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True, onerror=refuse):
        real = os.path.realpath(folder)
        if real in seen:  # by another link, or round in a circle
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        sizes |= local_sizes(os.path.join(folder, name) for name in files)
    return sizes


def fixed_part(path: str) -> str:
    """The folders of a glob before its first wildcard."""
    parts = path.split("/")
    while parts and any(glob.has_magic(part) for part in parts):
        parts.pop()
    return "/".join(parts)


def exists(input: str) -> bool:
    """Whether there is anything on this machine under that name; False for what no file can be called."""
    fs: AbstractFileSystem = fsspec.filesystem("file")
    return "://" not in input and bool(fs.exists(input) or fs.glob(input))


def open_file(url: str) -> InputStream:
    """
    Raises:
        UserError: it cannot be opened, and from the stream: it cannot be read any further.
    """
    local = url.removeprefix("file://")
    try:
        # A file's name may hold what fsspec takes for a pattern or for a chain of URLs.
        return InputStream(url, open(local, "rb") if local != url else fsspec.open(url, "rb").open())
    except Exception as error:  # every protocol has errors of its own
        raise unreadable(url, error) from error


class InputStream(io.RawIOBase):
    """A stream whose own failures (disk, network) are user errors: rows are not lost to them, as the same command
    goes on later. What parsers raise on damaged content stays as it is."""

    def __init__(self, url: str, stream: Any) -> None:
        self._url = url
        self._stream = stream

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(len(buffer))
        except Exception as error:
            raise unreadable(self._url, error) from error
        buffer[: len(data)] = data
        return len(data)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return self._stream.seek(offset, whence)
        except ValueError:
            raise  # a place that is not in the file: the caller's arithmetic on damaged content
        except Exception as error:
            raise unreadable(self._url, error) from error

    def tell(self) -> int:
        return self._stream.tell()

    def close(self) -> None:
        self._stream.close()
        super().close()


def unreadable(url: str, error: Exception) -> UserError:
    return UserError(f"{url} cannot be read ({' '.join(str(error).split())}); the same command goes on from here")
