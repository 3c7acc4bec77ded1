"""Which executor does the jobs of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from umm_bench.base import Base
from umm_bench.bench.making.jobs import Job, Maker, Message, Workplace

Begin = Callable[[Job], Job]
"""Is told each job just before it is begun; what it returns is done."""
Execute = Callable[[Sequence[Job], Workplace, Begin], Iterator[Message]]


def here(jobs: Sequence[Job], workplace: Workplace, begin: Begin) -> Iterator[Message]:
    """In this process, one after the other."""
    maker = Maker(workplace)
    for job in jobs:
        yield from maker.make(begin(job))


def executor(name: str, workers: int, base: Base) -> Execute:
    """`name` is "local", with 0 workers this process, or "ray". UserError for a device or a Ray that is not there."""
    if name == "ray":
        from umm_bench.bench.making.ray_actors import on_ray

        return on_ray(workers)
    base.device  # noqa: B018  # says so now if it is not there
    if workers == 0:
        return here
    from umm_bench.bench.making.processes import in_processes

    return in_processes(workers)
