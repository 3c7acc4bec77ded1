"""The jobs that are left, and who may have which: what two need to have set up is set up once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from umm_bench.bench.making.jobs import Drawn, Failed, Job, Message, SetUp

DEATHS = 2
"""Of workers at one job, after which it is taken to be the job's fault."""


class Queue:
    """Jobs in their order; a job that needs a setup that another is at waits for it."""

    def __init__(self, jobs: Sequence[Job], begin: Callable[[Job], Job]) -> None:
        """`begin` is told each job just before it is begun; what it returns is done."""
        self._left, self._begin = list(jobs), begin
        self._busy: dict[tuple[str, str], Job] = {}
        self._made: set[str] = set()
        self._settled: set[str] = set()
        self._deaths: Counter[tuple[str, str]] = Counter()

    @property
    def done(self) -> bool:
        return not self._left and not self._busy

    def take(self) -> Job | None:
        """The next job that can be begun; None where all that are left wait, or none is left."""
        at_work = {key for job in self._busy.values() for key in job.setup_keys} - self._made
        for number, job in enumerate(self._left):
            if not job.setup_keys & at_work:
                job = self._begin(self._left.pop(number))
                self._made.update(job.known)
                self._busy[_name(job)] = job
                return job
        return None

    def note(self, job: Job, message: Message) -> None:
        """What a job has got done so far."""
        if isinstance(message, SetUp):
            self._made.add(message.row["setup_key"])
        elif isinstance(message, Drawn | Failed):
            self._settled.update(message.keys)

    def finish(self, job: Job) -> None:
        del self._busy[_name(job)]

    def give_back(self, job: Job) -> tuple[str, ...]:
        """Its worker died: what is left of it is the next job. After DEATHS of them its samples' keys, given up."""
        del self._busy[_name(job)]
        left = tuple(sample for sample in job.samples if sample.key not in self._settled)
        self._deaths[_name(job)] += 1
        if not left:
            return ()
        if self._deaths[_name(job)] >= DEATHS:
            return tuple(sample.key for sample in left)
        self._left.insert(0, replace(job, samples=left))
        return ()


def _name(job: Job) -> tuple[str, str]:
    return job.method.name, job.case.id
