"""Ray Data: shards go to a pool of actors, each with its models loaded once (extra ``ray``).

The sink is idempotent, so a shard whose actor died is mined again by another and nothing is lost or doubled.
The output folder must be one that every node can write to.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

from curation.errors import UserError
from curation.worker import Progress, ShardTask, ShardWorker


def run_ray(tasks: Sequence[ShardTask], worker: ShardWorker, workers: int, *, gpus: float = 0) -> Iterator[Progress]:
    """One progress a shard, as they get done.

    Args:
        workers: actors; each takes one CPU and ``gpus`` GPUs of the cluster.

    Raises:
        UserError: Ray is not installed, or the cluster cannot hold the actors.
    """
    ray = connect(workers, gpus)
    # An actor pool restarts actors and tries their tasks again without end; `_mine` keeps errors out of that.
    # Pickled here: Ray would keep the tasks as Arrow extension types, one format more to depend on.
    rows = [{"task": pickle.dumps(task)} for task in tasks]
    done = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        ShardActor,
        fn_constructor_args=(worker,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(tasks)), max_tasks_in_flight_per_actor=1),
        num_cpus=1,
        num_gpus=gpus,
    )
    for row in done.iter_rows():
        outcome = pickle.loads(row["outcome"])
        if isinstance(outcome, BaseException):
            raise outcome
        yield outcome


def connect(workers: int, gpus: float) -> Any:
    """The ``ray`` module, on the cluster that RAY_ADDRESS names, else on one of this machine's own."""
    try:
        import ray
    except ImportError:
        raise UserError("--executor ray needs Ray: pip install 'umm-bench[ray]'") from None
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    have = ray.cluster_resources()
    if have.get("CPU", 0) < workers or have.get("GPU", 0) < workers * gpus:
        raise UserError(
            f"--workers {workers} needs as many CPUs{' and GPUs' if gpus else ''}; "
            f"the Ray cluster has {have.get('CPU', 0):.0f} and {have.get('GPU', 0):.0f}"
        )
    return ray


class ShardActor:
    """A worker with its models, kept between shards."""

    def __init__(self, worker: ShardWorker) -> None:
        self._worker = worker

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        return {"outcome": [pickle.dumps(self._mine(pickle.loads(task))) for task in batch["task"]]}

    def _mine(self, task: ShardTask) -> Progress | UserError | OSError:
        """Errors travel as values: raised here, Ray would dress them in its own."""
        try:
            steps = list(self._worker(task))
        except (UserError, OSError) as error:
            return error
        return Progress(task.index, sum(s.rows for s in steps), sum(s.pairs for s in steps), done=True)
