"""Whole or not at all: files and folders that take their names only when they are complete.

Each writer has a name of its own to write under, so that two that make the same thing at once do not meet; a kill
leaves what was there before, and a leftover that is named ``*.tmp``.
"""

from __future__ import annotations

import errno
import glob
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# A leftover of a killed writer is taken away by the next one, where nobody has written to it for so long.
LEFTOVER_SECONDS = 86_400


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to; it takes the name ``path`` when the block ends well, and is gone otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _own_name(path)
    try:
        yield unfinished
        with unfinished.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, is_whole: Callable[[Path], bool] | None = None) -> Iterator[Path]:
    """An empty folder to write to; it takes the name ``path`` when the block ends well, and is gone otherwise.

    Args:
        is_whole: for what comes out the same whoever makes it: if by the end another has put a whole one at ``path``,
            that stays, as somebody may be reading it. Without it, the last one stands.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    unfinished = _own_name(path)
    unfinished.mkdir()
    try:
        yield unfinished
        replace_folder(unfinished, path, is_whole)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def replace_folder(unfinished: Path, path: Path, is_whole: Callable[[Path], bool] | None = None) -> None:
    """Puts a finished folder in place. A kill leaves the old one, perhaps as ``.old``, or the new one, never a part."""
    old = path.with_name(path.name + ".old")
    while True:
        if path.exists():  # where it does not, .old may be all there is
            if is_whole is not None and is_whole(path):
                return
            shutil.rmtree(old, ignore_errors=True)
            with suppress(FileNotFoundError):  # another has moved it away
                os.replace(path, old)
        try:
            os.replace(unfinished, path)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another has put its own there
                raise
    shutil.rmtree(old, ignore_errors=True)


def _own_name(path: Path) -> Path:
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")


def _remove_leftovers(path: Path) -> None:
    for leftover in path.parent.glob(f"{glob.escape(path.name)}.????????.tmp"):
        with suppress(FileNotFoundError):
            if time.time() - leftover.stat().st_mtime > LEFTOVER_SECONDS:
                shutil.rmtree(leftover, ignore_errors=True)
