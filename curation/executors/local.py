"""This machine: one shard after another in this process, or several at a time in worker processes."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from typing import Any

from curation.errors import UserError
from curation.worker import Progress, ShardTask, ShardWorker

POLL_SECONDS = 1.0
END_SECONDS = 10.0


def run_local(tasks: Sequence[ShardTask], worker: ShardWorker, workers: int) -> Iterator[Progress]:
    if workers == 1 or len(tasks) < 2:
        for task in tasks:
            yield from worker(task)
    else:
        yield from run_processes(tasks, worker, min(workers, len(tasks)))


def run_processes(tasks: Sequence[ShardTask], worker: ShardWorker, workers: int) -> Iterator[Progress]:
    """Raises what a worker raised; a worker that died without a word is a `UserError`."""
    context = multiprocessing.get_context("spawn")
    todo, reports = context.Queue(), context.Queue()
    todo.cancel_join_thread()  # or this process would not end before somebody has taken every task
    for task in [*tasks, *[None] * workers]:
        todo.put(task)
    # Two workers that both take every core are slower than one.
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    processes: list[Any] = []
    try:
        for _ in range(workers):
            process = context.Process(target=serve, args=(worker, threads, todo, reports), daemon=True)
            process.start()
            processes.append(process)
        left = len(tasks)
        while left:
            try:
                report = reports.get(timeout=POLL_SECONDS)
            except queue.Empty:
                check_alive(processes)
                continue
            if isinstance(report, BaseException):
                raise report
            left -= report.done
            yield report
        for process in processes:
            process.join(END_SECONDS)  # a killed one would leave its semaphores behind
    finally:
        for process in processes:
            process.kill()  # no-op where it has ended; shards appear whole or not at all
            process.join()


def check_alive(processes: Sequence[Any]) -> None:
    codes = [process.exitcode for process in processes if process.exitcode]
    if codes:
        why = f"signal {-codes[0]}" if codes[0] < 0 else f"exit code {codes[0]}"
        raise UserError(
            f"a worker process died ({why}; out of memory?); finished shards are kept, run the command again"
        )


def serve(worker: ShardWorker, threads: int, todo: Any, reports: Any) -> None:
    """The life of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read when torch is loaded, which is later
    threading.Thread(target=die_with_parent, daemon=True).start()
    try:
        while (task := todo.get()) is not None:
            for progress in worker(task):
                reports.put(progress)
    except BaseException as error:
        reports.put(error)


def die_with_parent() -> None:
    """Without its parent a worker would write to a folder that nobody holds the lock of."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
