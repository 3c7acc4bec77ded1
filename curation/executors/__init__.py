"""Who runs the shards. An executor takes tasks and gives their progress; no stage knows which one it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from curation.config import BuildConfig
from curation.executors.local import run_local
from curation.worker import Progress, ShardTask, ShardWorker

__all__ = ["execute"]


def execute(tasks: Sequence[ShardTask], worker: ShardWorker, config: BuildConfig) -> Iterator[Progress]:
    """Runs all tasks with the executor and the number of workers that ``config`` names."""
    if not tasks:
        return
    if config.executor == "local":
        yield from run_local(tasks, worker, config.workers)
        return
    from curation.executors.ray_data import run_ray

    yield from run_ray(tasks, worker, config.workers, gpus=float(config.device.startswith("cuda")))
