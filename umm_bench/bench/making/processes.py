"""Jobs over processes of this machine. One that dies is replaced, and what it had left to do is done by another."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait

from umm_bench.base import Base
from umm_bench.bench.asked import Asked
from umm_bench.bench.making.executors import Begin, Execute
from umm_bench.bench.making.jobs import Failed, Job, Maker, Message, Workplace
from umm_bench.bench.making.queue import DEATHS, Queue
from umm_bench.cli.commands import quiet_libraries
from umm_bench.errors import UserError

logger = logging.getLogger(__name__)


def in_processes(workers: int) -> Execute:
    """An executor with so many processes, each with its own models; of several GPUs each takes the next one."""

    def execute(jobs: Sequence[Job], workplace: Workplace, begin: Begin) -> Iterator[Message]:
        queue = Queue(jobs, begin)
        hands: list[Hand] = []
        try:
            hands += [Hand(number, workers, workplace) for number in range(min(workers, len(jobs)))]
            while not queue.done:
                for hand in hands:
                    if hand.job is None and (job := queue.take()):
                        hand.send(job)
                busy = {hand: (hand.pipe, hand.process.sentinel) for hand in hands if hand.job}
                heard = set(wait([each for both in busy.values() for each in both]))
                for hand, both in busy.items():
                    if heard.intersection(both):
                        yield from _hear(hand, queue)
        finally:
            for hand in hands:
                hand.stop()

    return execute


def _hear(hand: Hand, queue: Queue) -> Iterator[Message]:
    """What a process has said; a dead one's job goes back."""
    job = hand.job
    assert job is not None
    try:
        while hand.pipe.poll():
            said = hand.pipe.recv()
            if isinstance(said, Raised):
                raise said.error()
            if said is None:
                queue.finish(job)
                hand.job = None
                return
            queue.note(job, said)
            yield said
        if hand.process.is_alive():
            return
    except (EOFError, ConnectionResetError):  # it died while it spoke
        hand.process.join()
    code = hand.process.exitcode
    logger.warning("a worker died (%s) at %s, %s", ended(code), job.method.name, job.case.id)
    hand.restart()
    if left := queue.give_back(job):
        yield Failed(left, "generate", f"its worker died {DEATHS} times ({ended(code)})")


def ended(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


@dataclass(frozen=True)
class Raised:
    """What ended a worker's job, and with it the run."""

    kind: str
    text: str
    trace: str

    def error(self) -> Exception:
        return UserError(self.text) if self.kind == "UserError" else RuntimeError(f"in a worker:\n{self.trace}")


class Hand:
    """One process and the job that it has."""

    def __init__(self, number: int, workers: int, workplace: Workplace) -> None:
        self._number, self._workers, self._workplace = number, workers, workplace
        self.job: Job | None = None
        self._start()

    def _start(self) -> None:
        # "spawn": a fork of a process with torch's threads may hang
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        place = replace(self._workplace, base=_of_its_own(self._workplace.base, self._number))
        threads = max(1, (os.cpu_count() or 1) // self._workers)
        self.process = context.Process(target=_work, args=(theirs, pickle.dumps(place), threads), daemon=True)
        self.process.start()
        theirs.close()

    def send(self, job: Job) -> None:
        self.job = job
        try:
            self.pipe.send((job.method.asked, pickle.dumps(job)))
        except (BrokenPipeError, ConnectionResetError):
            self.process.join()  # `_hear` finds it dead

    def restart(self) -> None:
        self.job = None
        self.pipe.close()
        self._start()

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _of_its_own(base: Base, number: int) -> Base:
    """With a GPU of several, where the device was left open."""
    torch = sys.modules.get("torch")
    if base.asked_device in ("auto", "cuda") and torch is not None and torch.cuda.device_count() > 1:
        return base.on(f"cuda:{number % torch.cuda.device_count()}")
    return base


def _work(pipe: Connection, place: bytes, threads: int) -> None:
    """The life of a process: jobs in, messages out, None after each job."""
    import torch

    torch.set_num_threads(threads)
    try:
        quiet_libraries()
        maker = Maker(pickle.loads(place))
        while True:
            asked, packed = pipe.recv()
            for message in do(maker, asked, packed):
                pipe.send(message)
            pipe.send(None)
    except (EOFError, KeyboardInterrupt, BrokenPipeError):
        return  # the run has ended
    except Exception as error:
        pipe.send(Raised(type(error).__name__, str(error), traceback.format_exc()))


def do(maker: Maker, asked: Asked | None, packed: bytes) -> Iterator[Message]:
    """A job that was sent. A class of a user's own file is not there before that file is loaded."""
    if asked is not None and asked.file is not None:
        asked.load()
    return maker.make(pickle.loads(packed))
