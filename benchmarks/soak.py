"""A long build on rows that are made as they are read: memory, rate, kills, and the same bytes after all.

    python -m benchmarks.soak [--rows 1000000] [--executor local ray] [--workers 2] [--kills 10] [--json]

Each executor mines the same rows: once undisturbed, while its memory and rate are taken down, and once while processes
of it are killed at moments drawn beforehand, the same command going on each time. Everything runs but a detector, which
is a rule, and downloads. Rates and memory are compared between the second and the last quarter of the rows, as the
first one warms up.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from benchmarks.curation import HalfGrounder
from curation.config import BuildConfig
from curation.language.vocabulary import words
from curation.records import Sample
from curation.runner import Plan, run
from figures import Figure, emit
from umm_bench.cli.arguments import Parser, whole
from umm_bench.cli.commands import run_command

ROWS_PER_SHARD = 10_000
LEAST_SHARDS = 8
SECONDS_BETWEEN_SAMPLES = 1.0
SECONDS_BETWEEN_STARTS = 5.0
COLOURS = sorted(words("red blue green white black yellow orange brown pink gray purple silver"))
THINGS = sorted(
    words(
        "fox car chair rabbit bottle bird house dog cat horse table lamp tree boat bicycle train guitar camera clock "
        "cup flower shoe hat ball umbrella bridge cow sheep duck bus truck plate book kite banana pizza piano vase "
        "bench bear"
    )
)
RELATIONS = ("next to", "behind", "in front of", "under", "near", "above", "beside", "with")


@dataclass(frozen=True)
class MadeShard:
    """Rows drawn by their number: a picture that no other repeats, a caption of a million and more that there are."""

    index: int
    rows: int

    @property
    def name(self) -> str:
        return f"made-{self.index:05d}"

    @property
    def size(self) -> int:
        return self.rows

    def read(self) -> Iterator[Sample]:
        for number in range(self.rows):
            rng = np.random.default_rng([self.index, number])
            coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(coarse).resize((64, 64), Image.Resampling.NEAREST).save(buffer, "JPEG")
            first, second = rng.choice(len(THINGS), 2, replace=False)
            one, other = rng.choice(COLOURS, 2)
            caption = f"a {one} {THINGS[first]} {rng.choice(RELATIONS)} a {other} {THINGS[second]}"
            yield Sample(f"{self.index:05d}{number:05d}", caption, buffer.getvalue())

    def count(self, at_most: int) -> int:
        return min(at_most, self.rows)


def make_plan(rows: int, rows_per_shard: int, executor: str, workers: int, output: Path) -> Plan:
    from curation.grounding import with_threshold
    from curation.output.writer import Layout

    config = with_threshold(BuildConfig(executor=executor, workers=workers, output=str(output)), None)
    sizes = shard_sizes(rows, rows_per_shard)
    shards = tuple((MadeShard(index, size), None) for index, size in enumerate(sizes))
    head = {
        "fingerprint": f"soak of {rows} rows, {rows_per_shard} a shard",
        "config": config.to_json(),
        "detector": "none",
        "shards": [shard.name for shard, _ in shards],
    }
    return Plan(config, Layout(output, len(shards)), shards, "none", head, complete=False)


def mine(plan: Plan) -> None:
    """The build, in a process that may be killed."""
    for _ in run(plan, HalfGrounder()):
        pass


@dataclass
class Watch:
    """One run of the command, by what it leaves on disk: (seconds, rows of finished shards), and at these rows the MiB
    of its greatest process."""

    code: int = 0
    kills: int = 0
    said: str = ""
    rows: list[tuple[float, int]] = field(default_factory=list)
    memory: list[tuple[int, float]] = field(default_factory=list)
    finish_seconds: float = 0.0
    finish_memory: float = 0.0


def watch(command: Sequence[str], folder: Path, sizes: Sequence[int], kills: list[int], rng: random.Random) -> Watch:
    """Runs the command. At each number of finished shards in ``kills``, which it takes off, one process is killed."""
    seen = Watch()
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "RAY_DEDUP_LOGS": "0"}
    begun, mined_at = time.time(), None
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, env=environment) as process,
    ):
        while process.poll() is None:
            finished = [int(path.stem) for path in (folder / "shards").glob("?????.json")]
            rows, greatest = sum(sizes[index] for index in finished), greatest_process(process.pid)
            if mined_at is None:
                seen.memory.append((rows, greatest))
                mined_at = time.monotonic() if len(finished) == len(sizes) else None
            else:
                seen.finish_memory = max(seen.finish_memory, greatest)
            if kills and len(finished) >= kills[0] and kill_one(process.pid, rng):
                kills.pop(0)
                seen.kills += 1
            time.sleep(SECONDS_BETWEEN_SAMPLES * rng.uniform(0.5, 1.5))
        seen.finish_seconds = 0.0 if mined_at is None else time.monotonic() - mined_at
        seen.code = process.returncode
        seen.rows = progress(folder, sizes, begun)
        log.seek(0)
        seen.said = log.read()[-2000:].decode(errors="replace")
    return seen


def progress(folder: Path, sizes: Sequence[int], begun: float) -> list[tuple[float, int]]:
    """When each shard was done, in seconds, and how many rows were done by then."""
    finished = sorted((path.stat().st_mtime - begun, int(path.stem)) for path in (folder / "shards").glob("?????.json"))
    rows = accumulate((sizes[index] for _, index in finished), initial=0)
    return list(zip([0.0, *(seconds for seconds, _ in finished)], rows, strict=True))


def family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def greatest_process(pid: int) -> float:
    """MiB of the one that holds most; of memory that processes share, each its part of it is not told apart."""
    sizes = [0.0]
    for process in family(pid):
        try:
            sizes.append(process.memory_info().rss / 2**20)
        except psutil.NoSuchProcess:
            continue
    return max(sizes)


def kill_one(pid: int, rng: random.Random) -> bool:
    """The command itself or one of its workers. False where none is there, or the one drawn is gone."""
    own = [process for process in family(pid) if is_worker(process) or process.pid == pid]
    if len(own) < 2:
        return False
    victim = rng.choice(sorted(own, key=lambda process: process.pid))
    try:
        victim.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return False
    return True


def is_worker(process: psutil.Process) -> bool:
    try:
        line = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return "spawn_main" in line or "ray::" in line


def quarter(values: Sequence[tuple[float, float]], number: int, whole: float) -> list[tuple[float, float]]:
    low, high = whole * (number - 1) / 4, whole * number / 4
    return [value for value in values if low <= value[0] <= high]


def rate(seen: Watch, number: int, rows: int) -> float:
    """Rows a second in a quarter of the rows."""
    part = quarter([(float(told), at) for at, told in seen.rows], number, rows)
    if len(part) < 2 or part[-1][1] <= part[0][1]:
        return float("nan")
    return (part[-1][0] - part[0][0]) / (part[-1][1] - part[0][1])


def memory(seen: Watch, number: int, rows: int) -> float:
    part = quarter([(float(told), size) for told, size in seen.memory], number, rows)
    return statistics.median(size for _, size in part) if part else float("nan")


def digests(folder: Path) -> dict[str, str]:
    """Of every file that a build leaves."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def soak(executor: str, arguments: argparse.Namespace, folder: Path) -> Iterator[Figure]:
    rows, name = arguments.rows, f"soak.{executor}"
    command = [sys.executable, "-m", "benchmarks.soak", "--child", "--executor", executor]
    command += ["--rows", str(rows), "--rows-per-shard", str(arguments.rows_per_shard)]
    command += ["--workers", str(arguments.workers), "--output"]
    sizes = shard_sizes(rows, arguments.rows_per_shard)
    rng = random.Random(f"{executor} {rows}")
    calm, shaken = folder / f"{executor}-calm", folder / f"{executor}-shaken"
    seen = watch([*command, str(calm)], calm, sizes, [], rng)
    if seen.code:
        raise RuntimeError(f"the build ended with {seen.code}: {seen.said}")
    seconds = seen.rows[-1][0]
    note = f"{rows} rows, {arguments.workers} workers"
    yield Figure(f"{name}.rate", rows / seconds, "rows/s", True, None, f"{note}, from the command's start")
    flat = rate(seen, 4, rows) / rate(seen, 2, rows)
    yield Figure(f"{name}.rate_last_to_second_quarter", flat, "ratio", True, 0.8, note)
    between = memory(seen, 2, rows), memory(seen, 4, rows)
    yield Figure(f"{name}.memory", between[1], "MiB", False, None, "of the greatest process, in the last quarter")
    yield Figure(f"{name}.memory_last_to_second_quarter", between[1] / between[0], "ratio", False, 1.25, note)
    yield Figure(f"{name}.finish", seen.finish_seconds, "s", False, None, "duplicates across shards, counts, report")
    yield Figure(f"{name}.finish_memory", seen.finish_memory, "MiB", False, None, "greatest process of the end")

    kills = sorted(rng.randrange(len(sizes)) for _ in range(arguments.kills))
    done, starts = 0, 0
    while starts <= 2 * arguments.kills + 1:
        again = watch([*command, str(shaken)], shaken, sizes, kills, rng)
        done, starts = done + again.kills, starts + 1
        if again.code == 0:
            break
        time.sleep(SECONDS_BETWEEN_STARTS)  # what a killed command leaves behind ends by itself
    else:
        raise RuntimeError(f"the build ended with {again.code} after {starts} starts: {again.said}")
    same = digests(calm) == digests(shaken)
    yield Figure(f"{name}.kills", done, "processes", True, arguments.kills, f"{starts} starts of the same command")
    yield Figure(f"{name}.same_bytes", float(same), "share", True, 1.0, f"{len(digests(calm))} files")
    for used in (calm, shaken):
        shutil.rmtree(used)


def shard_sizes(rows: int, rows_per_shard: int) -> list[int]:
    return [min(rows_per_shard, rows - start) for start in range(0, rows, rows_per_shard)]


def compare_executors(arguments: argparse.Namespace) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for executor in arguments.executor:
            yield from soak(executor, arguments, Path(folder))


def main(argv: list[str] | None = None) -> int:
    return run_command(lambda: _command(argv))


def _command(argv: list[str] | None) -> None:
    parser = Parser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--rows", type=whole(), default=1_000_000)
    parser.add_argument("--rows-per-shard", type=whole(), default=ROWS_PER_SHARD)
    parser.add_argument("--executor", choices=("local", "ray"), nargs="+", default=["local", "ray"])
    parser.add_argument("--workers", type=whole(), default=2)
    parser.add_argument("--kills", type=whole(0), default=10)
    parser.add_argument("--folder", help="where the builds are for a while; left out, the system's")
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="one figure a line")
    arguments = parser.parse_args(argv)
    if arguments.child:
        from benchmarks import soak as this  # not as __main__, which a worker of Ray's cannot import

        (executor,) = arguments.executor
        this.mine(
            this.make_plan(arguments.rows, arguments.rows_per_shard, executor, arguments.workers, arguments.output)
        )
    elif len(shard_sizes(arguments.rows, arguments.rows_per_shard)) < LEAST_SHARDS:
        parser.error(f"--rows must fill {LEAST_SHARDS} shards of --rows-per-shard, two for each quarter")
    elif "ray" in arguments.executor and find_spec("ray") is None:
        parser.error("--executor ray needs Ray: pip install 'umm-bench[ray]'")
    else:
        emit(compare_executors(arguments), arguments.json)


if __name__ == "__main__":
    sys.exit(main())
