from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from curation import UserError, build_pairs
from curation.executors.local import run_local
from curation.web.prefetch import prefetch
from curation.worker import Progress, ShardTask, ShardWorker, Worker
from tests.curation.test_build import comparable, config, rows_of


@dataclass(frozen=True)
class NoShard:
    name: str = ""
    size: int = 0


TASKS = [ShardTask(index, NoShard(), None) for index in range(4)]  # type: ignore[arg-type]


class Dies:
    def __call__(self, task: ShardTask) -> Iterator[Progress]:
        yield Progress(task.index, 1, 1)
        os.kill(os.getpid(), signal.SIGKILL)


class Fails:
    def __call__(self, task: ShardTask) -> Iterator[Progress]:
        raise UserError("the corpus is gone")
        yield


class HoldsSemaphore:
    """As tqdm makes one; ends a little after its last report, as a process that has torch loaded does."""

    def __call__(self, task: ShardTask) -> Iterator[Progress]:
        self.lock = multiprocessing.get_context("spawn").Lock()
        yield Progress(task.index, 1, 1, done=True)
        time.sleep(0.2)


@dataclass
class Waits:
    """Simulated work; leaves the times of its beginning and end."""

    folder: Path
    seconds: float

    def __call__(self, task: ShardTask) -> Iterator[Progress]:
        began = time.time()
        time.sleep(self.seconds)
        (self.folder / str(task.index)).write_text(f"{began} {time.time()} {os.getpid()}")
        yield Progress(task.index, 1, 1, done=True)

    def taken(self) -> float:
        times = [path.read_text().split() for path in self.folder.iterdir()]
        return max(float(end) for _, end, _ in times) - min(float(begin) for begin, _, _ in times)


@dataclass
class KilledOnce:
    """Dies in the middle of a shard, once."""

    worker: ShardWorker
    marker: Path

    def __call__(self, task: ShardTask) -> Iterator[Progress]:
        for progress in self.worker(task):
            if task.index == 1 and not self.marker.exists():
                self.marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield progress


def test_two_processes_write_what_one_does(corpus: Path, tmp_path: Path, grounder):
    one = build_pairs(config(corpus, tmp_path / "one"), grounder)
    two = build_pairs(config(corpus, tmp_path / "two", workers=2), grounder)
    assert one.tally == two.tally and one.tally.pairs == 72
    assert comparable(tmp_path / "one") == comparable(tmp_path / "two")


def test_a_worker_that_dies_is_one_clear_error():
    with pytest.raises(UserError, match=r"worker process died \(signal 9"):
        list(run_local(TASKS, Dies(), 2))


def test_what_a_worker_raises_is_raised():
    with pytest.raises(UserError, match="the corpus is gone"):
        list(run_local(TASKS, Fails(), 2))


def program(tmp_path: Path, tasks: str, worker: str) -> list[str]:
    """A command that runs tasks in two worker processes and prints a line a step."""
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "from pathlib import Path; from tests.curation.test_executors import *\n"
        "if __name__ == '__main__':\n"
        f"    for step in run_local({tasks}, {worker}, 2): print(step.index, flush=True)\n"
    )
    return [sys.executable, str(script)]


def test_workers_leave_no_semaphores_behind(tmp_path: Path):
    ended = subprocess.run(program(tmp_path, "TASKS", "HoldsSemaphore()"), capture_output=True, text=True)
    assert (len(ended.stdout.splitlines()), ended.stderr) == (4, "")


def test_an_error_ends_the_program_though_most_tasks_are_not_taken(tmp_path: Path):
    """What waits for a worker is more than a pipe holds."""
    ended = subprocess.run(program(tmp_path, "TASKS * 1000", "Fails()"), capture_output=True, text=True, timeout=300)
    assert ended.stderr.splitlines()[-1] == "curation.errors.UserError: the corpus is gone"


def test_a_worker_that_does_not_start_is_an_error_like_any_other():
    with pytest.raises((AttributeError, pickle.PicklingError), match="local object"):
        list(run_local(TASKS, lambda task: iter(()), 2))


def test_workers_go_with_a_killed_parent(tmp_path: Path):
    work = f"Waits(Path({str(tmp_path)!r}), 0.2)"
    parent = subprocess.Popen(program(tmp_path, "TASKS", work), stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    parent.stdout.readline()
    children = subprocess.run(["pgrep", "-P", str(parent.pid)], capture_output=True, text=True).stdout.split()
    parent.kill()
    parent.wait()
    assert children
    deadline = time.monotonic() + 20
    while any(running(int(child)) for child in children):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.1)


def running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_prefetch_keeps_order_and_raises_what_was_raised():
    assert list(prefetch(range(20), 2)) == list(range(20))

    def broken() -> Iterator[int]:
        yield 1
        raise UserError("unreadable")

    items = prefetch(broken(), 1)
    assert next(items) == 1
    with pytest.raises(UserError, match="unreadable"):
        next(items)


def test_prefetch_stops_when_its_consumer_does():
    made: list[int] = []

    def endless() -> Iterator[int]:
        while True:
            made.append(len(made))
            yield made[-1]

    items = prefetch(endless(), 1)
    next(items)
    items.close()
    count = len(made)
    assert count <= 4
    time.sleep(0.3)
    assert len(made) == count


@pytest.fixture(scope="module")
def ray_cluster():
    pytest.importorskip("ray.data", reason="Ray is not installed (extra `ray`)")
    import ray

    from curation.executors.ray_data import run_ray

    path = os.pathsep.join([str(Path(__file__).parent), os.getcwd()])
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100_000_000,
        runtime_env={"env_vars": {"PYTHONPATH": path, "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}},
    )
    yield run_ray
    ray.shutdown()


def test_ray_writes_the_same_bytes_even_when_a_worker_is_killed(
    corpus: Path, tmp_path: Path, grounder, ray_cluster, monkeypatch
):
    build_pairs(config(corpus, tmp_path / "local"), grounder)
    killed = tmp_path / "killed"
    monkeypatch.setattr("curation.runner.Worker", lambda *arguments: KilledOnce(Worker(*arguments), killed))
    result = build_pairs(config(corpus, tmp_path / "ray", executor="ray", workers=2), grounder)
    assert killed.exists()
    assert result.tally.pairs == len(rows_of(tmp_path / "ray")) == 72
    assert comparable(tmp_path / "ray") == comparable(tmp_path / "local")


def test_ray_gives_a_workers_error_as_it_is(ray_cluster):
    with pytest.raises(UserError, match=r"^the corpus is gone$"):
        list(ray_cluster(TASKS, Fails(), 2))
    with pytest.raises(UserError, match="--workers 64 needs as many CPUs"):
        list(ray_cluster(TASKS, Fails(), 64))


def test_two_ray_workers_are_nearly_twice_as_fast(tmp_path: Path, ray_cluster):
    taken = {}
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        folder.mkdir()
        work = Waits(folder, 2.0)
        list(ray_cluster(TASKS, work, workers))
        taken[workers] = work.taken()
    assert taken[1] >= 1.7 * taken[2], taken
