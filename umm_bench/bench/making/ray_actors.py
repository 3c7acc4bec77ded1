"""Jobs over a Ray cluster, that of RAY_ADDRESS or one on this machine. The folder must be there for every node.

An actor that dies is replaced, and what it had left to do is done by another.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

from umm_bench.bench.making.executors import Begin, Execute
from umm_bench.bench.making.jobs import Failed, Job, Maker, Message, Workplace
from umm_bench.bench.making.processes import do
from umm_bench.bench.making.queue import DEATHS, Queue
from umm_bench.errors import UserError
from umm_bench.weights import first_line

logger = logging.getLogger(__name__)


def on_ray(workers: int) -> Execute:
    """An executor with so many actors, each with a GPU where the cluster has any. UserError where Ray is not there, and
    where the cluster goes away.
    """

    def execute(jobs: Sequence[Job], workplace: Workplace, begin: Begin) -> Iterator[Message]:
        ray, before = _ray(), _ray().is_initialized()
        _connect(ray, min(workers, len(jobs)))
        try:
            yield from _execute(ray, min(workers, len(jobs)), Queue(jobs, begin), workplace)
        except ray.exceptions.RayTaskError:
            raise  # a bug, with its place in the worker
        except ray.exceptions.RayError as error:
            said = first_line(error)
            raise UserError(f"the Ray cluster failed: {said}; the same command goes on from here") from error
        finally:
            if not before:
                ray.shutdown()

    _ray()
    return execute


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UserError("--executor ray needs Ray: pip install 'umm-bench[ray]'") from error
    return ray


def _connect(ray: Any, workers: int) -> None:
    """The cluster that RAY_ADDRESS names, else one of this machine's own. UserError where it is too small."""
    try:
        if not ray.is_initialized():
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"no Ray cluster: {first_line(error)}") from error
    cpus = ray.cluster_resources().get("CPU", 0)
    if cpus < workers:
        raise UserError(f"--workers {workers} needs as many CPUs; the Ray cluster has {cpus:.0f}")


def _execute(ray: Any, workers: int, queue: Queue, workplace: Workplace) -> Iterator[Message]:
    gpus = 1 if ray.cluster_resources().get("GPU", 0) >= workers and workplace.base.asked_device != "cpu" else 0
    actor_class = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=0)(Actor)
    free = [actor_class.remote(pickle.dumps(workplace)) for _ in range(workers)]
    busy: dict[Any, tuple[Any, Job, Any]] = {}  # what an actor will say next: the actor, its job, all that it says
    while not queue.done:
        while free and (job := queue.take()):
            actor = free.pop()
            said = actor.make.options(num_returns="streaming").remote(job.method.asked, pickle.dumps(job))
            busy[next(said)] = actor, job, said
        (ready,), _ = ray.wait(list(busy), num_returns=1)
        actor, job, said = busy.pop(ready)
        try:
            messages = pickle.loads(ray.get(ready))
        except ray.exceptions.RayActorError as error:
            logger.warning("a worker died (%s) at %s, %s", first_line(error), job.method.name, job.case.id)
            if left := queue.give_back(job):
                yield Failed(left, "generate", f"its worker died {DEATHS} times")
            free.append(actor_class.remote(pickle.dumps(workplace)))
            continue
        if isinstance(messages, Exception):
            raise messages
        if messages is None:
            queue.finish(job)
            free.append(actor)
            continue
        queue.note(job, messages)
        yield messages
        busy[next(said)] = actor, job, said


class Actor:
    """A worker of the cluster. Errors travel as values: raised here, Ray would dress them in its own."""

    def __init__(self, workplace: bytes) -> None:
        self._maker = Maker(pickle.loads(workplace))

    def make(self, asked: Any, packed: bytes) -> Iterator[bytes]:
        """Pickled messages as they come, None at the end, or the error that ends the run."""
        try:
            for message in do(self._maker, asked, packed):  # Ray drives a generator of its own
                yield pickle.dumps(message)
            yield pickle.dumps(None)
        except UserError as error:
            yield pickle.dumps(error)
