"""Seconds and peak memory of a block of work."""

import sys
import threading
import time
from typing import Any

import psutil


class Measured:
    """`with Measured() as cost: work()`; then `cost.seconds` and `cost.peak_mb`.

    `peak_mb` is the largest resident memory of the whole process seen during the block, sampled every 20 ms;
    with CUDA in use, the allocator's peak on top. (Not every kernel lets its own high-water mark be set back
    for one block.)
    """

    seconds: float
    peak_mb: float

    def __enter__(self) -> "Measured":
        self._process, self._done = psutil.Process(), threading.Event()
        self._peak = self._process.memory_info().rss
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        if cuda := _cuda():
            cuda.reset_peak_memory_stats()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        cuda = _cuda()
        if cuda:
            cuda.synchronize()
        self.seconds = time.perf_counter() - self._start
        self._done.set()
        self._watcher.join()
        peak = max(self._peak, self._process.memory_info().rss)
        self.peak_mb = (peak + (cuda.max_memory_allocated() if cuda else 0)) / 2**20

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self._peak = max(self._peak, self._process.memory_info().rss)


def _cuda() -> Any:
    # Asking must not be what imports torch.
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() else None
