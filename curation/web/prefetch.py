"""Work ahead of whoever consumes it, in a thread: the next rows are read and decoded while the detector runs."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.1
JOIN_SECONDS = 10.0


def prefetch(items: Iterable[T], ahead: int) -> Generator[T, None, None]:
    """The same items in the same order, made up to ``ahead`` + 1 early; what ``items`` raises is raised here.

    Closing the generator stops the thread after the item that it is at.
    """
    ready: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(maxsize=ahead)
    stopped = threading.Event()

    def put(entry: tuple[T] | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return ready.put(entry, timeout=POLL_SECONDS)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put((item,))
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while (entry := ready.get()) is not None:
            if isinstance(entry, BaseException):
                raise entry
            yield entry[0]
    finally:
        stopped.set()
        thread.join(JOIN_SECONDS)
