"""What a build costs on many machines: stage costs measured here, and a model that says what breaks first.

    python -m benchmarks.scale [--rows 100000000] [--machines 1 10 100 1000] [--cores 16] [--detector-rate 8] [--json]

The model, with R rows, M machines of C workers, S = R / rows a shard:

    mining = ceil(S / (M C)) x seconds a shard       workers share nothing; a shard is what one of them does at a time
    end    = a R + b R^2                             one process: duplicates across shards, counts, digests
    b: a near-duplicate look-up compares a picture with those in its bands, whose number grows with R

A row's seconds are the sum of the stages below on one core; `--detector-rate` puts a GPU's rows a second in the place
of the measured detector's. Downloads, the storage's bandwidth and failing machines are not in the model.
"""

from __future__ import annotations

import math
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.curation import HalfGrounder, recorded
from benchmarks.soak import MadeShard, make_plan
from curation.config import BuildConfig
from curation.defaults import default
from curation.runner import run
from figures import Figure, emit
from umm_bench.cli.arguments import Parser, real, whole
from umm_bench.cli.commands import run_command

# Of what a made corpus gives: two pairs a row.
SAMPLE_ROWS = 2_000
DETECTOR_ROWS = 128
LOOKUPS = 2_000
SECONDS_A_DAY = 86_400.0


@dataclass(frozen=True)
class Costs:
    """Seconds a row on one core, and the end's: ``linear`` a row, ``quadratic`` a pair of rows."""

    caption: float
    picture: float
    detector: float
    rest: float
    linear: float
    quadratic: float

    @property
    def row(self) -> float:
        return self.caption + self.picture + self.detector + self.rest


@dataclass(frozen=True)
class Estimate:
    """In seconds; ``breaks`` names what most of the time goes into."""

    machines: int
    mining: float
    end: float
    memory: float  # GiB of the last process

    @property
    def breaks(self) -> str:
        return "the workers" if self.mining > self.end else "the end, in one process"


def measure(seconds_a_row_detecting: float | None, device: str, bits: int) -> Costs:
    config = BuildConfig(device=device)
    samples = [sample for sample in MadeShard(0, SAMPLE_ROWS).read() if sample.image is not None]
    caption = captions_cost([sample.caption for sample in samples], config)
    picture = pictures_cost([sample.image for sample in samples if sample.image is not None], config)
    detector = detector_cost(config) if seconds_a_row_detecting is None else seconds_a_row_detecting
    whole, end = build_cost()
    quadratic = lookup_cost(4 * LOOKUPS, 40 * LOOKUPS, bits)
    linear = max(0.0, end / SAMPLE_ROWS - quadratic * SAMPLE_ROWS)
    return Costs(caption, picture, detector, max(0.0, whole / SAMPLE_ROWS - caption - picture), linear, quadratic)


def captions_cost(captions: Sequence[str], config: BuildConfig) -> float:
    from curation.language.phrases import PhraseExtractor

    extractor = PhraseExtractor(config)
    extractor(captions[:64])
    extractor.forget()
    began = time.process_time()
    for start in range(0, len(captions), 128):
        extractor(captions[start : start + 128])
    return (time.process_time() - began) / len(captions)


def pictures_cost(images: Sequence[bytes], config: BuildConfig) -> float:
    """Decoding, digests and perceptual hashes."""
    from curation.vision.dedup import content_hash, perceptual_hash
    from curation.vision.images import decode

    perceptual_hash(decode(images[0], config))
    began = time.process_time()
    for data in images:
        content_hash(data)
        perceptual_hash(decode(data, config))
    return (time.process_time() - began) / len(images)


def detector_cost(config: BuildConfig) -> float:
    """The default detector, on rows of the default corpus."""
    from benchmarks.curation import corpus
    from curation.grounding import load_grounder

    asked = recorded(BuildConfig(input=str(corpus(4 * DETECTOR_ROWS)), device=config.device))[:DETECTOR_ROWS]
    grounder = load_grounder(config, default("detector"))
    grounder.ground(*map(list, zip(*asked[:16], strict=True)))
    began = time.process_time()
    grounder.ground(*map(list, zip(*asked, strict=True)))
    return (time.process_time() - began) / len(asked)


def build_cost() -> tuple[float, float]:
    """Seconds of a build without a detector, and of its end; spaCy is loaded before the first row counts."""
    with tempfile.TemporaryDirectory() as folder:
        plan = make_plan(2 * SAMPLE_ROWS, SAMPLE_ROWS, "local", 1, Path(folder) / "out")
        marks = []
        for step in run(plan, HalfGrounder()):
            if step.done:
                marks.append(time.process_time())
        # Of two shards the first one loads; the end is of both.
        return marks[1] - marks[0], (time.process_time() - marks[1]) / 2


def lookup_cost(few: int, many: int, bits: int) -> float:
    """How much dearer a near-duplicate look-up and entry becomes with each picture that is known."""
    from curation.vision.dedup import DuplicateIndex

    rng = random.Random(0)
    index, seconds = DuplicateIndex(bits), []
    known = 0
    for size in (few, many):
        while known < size:
            index.add_near(f"{rng.getrandbits(64):016x}")
            known += 1
        asked = [f"{rng.getrandbits(64):016x}" for _ in range(LOOKUPS)]
        began = time.process_time()
        for phash in asked:
            index.has_near(phash)
        seconds.append((time.process_time() - began) / LOOKUPS)
    # A picture's look-up meets those before it: half of all, on average.
    return max(0.0, (seconds[1] - seconds[0]) / (many - few)) / 2


def index_bytes(bits: int, entries: int = 100_000) -> float:
    """Memory of an image in the index, by what Python says it has taken."""
    import tracemalloc

    from curation.vision.dedup import DuplicateIndex, content_hash

    rng = random.Random(1)
    tracemalloc.start()
    index = DuplicateIndex(bits)
    for number in range(entries):
        index.add_bytes(content_hash(str(number).encode()))
        index.add_near(f"{rng.getrandbits(64):016x}")
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return taken / entries


def estimate(costs: Costs, rows: int, machines: int, cores: int, rows_per_shard: int, image_bytes: float) -> Estimate:
    shards = math.ceil(rows / rows_per_shard)
    mining = math.ceil(shards / (machines * cores)) * min(rows, rows_per_shard) * costs.row
    return Estimate(machines, mining, costs.linear * rows + costs.quadratic * rows**2, rows * image_bytes / 2**30)


def spoken(seconds: float) -> str:
    for name, length in (("years", 365 * SECONDS_A_DAY), ("days", SECONDS_A_DAY), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {name}"
    return f"{seconds:.0f} s"


def show(costs: Costs, estimates: Sequence[Estimate], rows: int, cores: int) -> None:
    table = Table("stage", "ms a row", box=None)
    for name in ("caption", "picture", "detector", "rest"):
        table.add_row(name, f"{1000 * getattr(costs, name):.2f}")
    Console().print(table, "")
    table = Table(f"machines of {cores}", "mining", "end", "memory of the end", "most time in", box=None)
    for one in estimates:
        table.add_row(str(one.machines), spoken(one.mining), spoken(one.end), f"{one.memory:.1f} GiB", one.breaks)
    Console().print(f"{rows:,} rows", table, "")


def figures(costs: Costs, estimates: Sequence[Estimate]) -> Iterator[Figure]:
    for name in ("caption", "picture", "detector", "rest", "linear"):
        yield Figure(f"scale.{name}", 1000 * getattr(costs, name), "ms/row", False, None, "one core")
    yield Figure("scale.quadratic", 1e9 * costs.quadratic, "ns/row^2", False, None, "near duplicates across shards")
    for one in estimates:
        yield Figure(f"scale.mining.{one.machines}", one.mining, "s", False, None, one.breaks)
        yield Figure(f"scale.end.{one.machines}", one.end, "s", False, None, f"{one.memory:.1f} GiB")


def main(argv: list[str] | None = None) -> int:
    return run_command(lambda: _command(argv))


def _command(argv: list[str] | None) -> None:
    parser = Parser(prog="python -m benchmarks.scale", description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=whole(), default=100_000_000)
    parser.add_argument("--machines", type=whole(), nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--cores", type=whole(), default=16, help="workers a machine")
    parser.add_argument("--rows-per-shard", type=whole(), default=BuildConfig.rows_per_shard)
    parser.add_argument(
        "--detector-rate", type=real(0, above=True), help="rows a second of a worker's GPU; left out, measured here"
    )
    parser.add_argument(
        "--near-duplicate-bits", type=whole(0), default=BuildConfig.near_duplicate_bits, help="as in curation.build"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true", help="one figure a line")
    arguments = parser.parse_args(argv)
    costs = measure(
        1 / arguments.detector_rate if arguments.detector_rate else None,
        arguments.device,
        arguments.near_duplicate_bits,
    )
    size = index_bytes(arguments.near_duplicate_bits)
    estimates = [
        estimate(costs, arguments.rows, machines, arguments.cores, arguments.rows_per_shard, size)
        for machines in arguments.machines
    ]
    if arguments.json:
        emit(figures(costs, estimates), True)
    else:
        show(costs, estimates, arguments.rows, arguments.cores)


if __name__ == "__main__":
    sys.exit(main())
