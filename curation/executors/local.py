"""One process, one shard after another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from curation.worker import Progress, ShardTask


class ShardWorker(Protocol):
    def __call__(self, task: ShardTask) -> Iterator[Progress]: ...


def run_local(tasks: Iterable[ShardTask], worker: ShardWorker) -> Iterator[Progress]:
    for task in tasks:
        yield from worker(task)
