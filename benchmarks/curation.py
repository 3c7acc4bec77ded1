"""How fast the miner is beside what one would use instead, and whether its memory stays flat.

    python -m benchmarks.curation [--rows 960] [--workers 2] [--clock cpu] [--memory] [--json]

Rates count from when the models are loaded. The plain loop is what published scripts do: one image, one caption,
one prompt at a time. The bare detector gets the pictures decoded and the phrases ready, in batches, and does no more.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.common import time_ratio
from curation.config import BuildConfig
from curation.defaults import default
from curation.errors import UserError
from curation.grounding import Grounder
from curation.records import Box, Sample
from curation.runner import make_plan, run
from curation.sources import open_source
from figures import Figure, emit
from umm_bench.cli.arguments import Parser, whole
from umm_bench.cli.commands import run_command

Clock = Callable[[], float]

MEMORY_PAIRS = (1_000, 10_000, 100_000)
ROWS_PER_SHARD = 10_000


def corpus(rows: int) -> Path:
    from curation.evaluate import default_corpus

    return default_corpus(rows, 0)


def readable(config: BuildConfig, limit: int) -> list[tuple[bytes, str]]:
    """(image bytes, caption) of rows that any script could use."""
    from curation.errors import Rejected
    from curation.language.captions import clean_caption
    from curation.vision.images import decode

    found = []
    for row in (row for shard in open_source(config).shards() for row in shard.read()):
        try:
            if isinstance(row, Sample) and row.image is not None:
                decode(row.image, config)
                clean_caption(row.caption, config)
                found.append((row.image, row.caption))
        except Rejected:
            continue
    return found[:limit]


class PlainLoop:
    """Reads, parses, detects and cuts out, one row after another, with the libraries' own calls."""

    def __init__(self, detector: str) -> None:
        import spacy
        from transformers import AutoProcessor, GroundingDinoForObjectDetection

        from curation.language.phrases import MODEL

        self._nlp = spacy.load(MODEL)
        self._processor = AutoProcessor.from_pretrained(detector)
        self._model: Any = GroundingDinoForObjectDetection.from_pretrained(detector).eval()

    def __call__(self, rows: Sequence[tuple[bytes, str]]) -> int:
        import torch

        crops = 0
        for data, caption in rows:
            image = Image.open(io.BytesIO(data)).convert("RGB")
            phrases = [chunk.text.lower() for chunk in self._nlp(caption).noun_chunks]
            if not phrases:
                continue
            inputs = self._processor(images=image, text=". ".join(phrases) + ".", return_tensors="pt")
            with torch.inference_mode():
                outputs = self._model(**inputs)
            found = self._processor.post_process_grounded_object_detection(
                outputs, inputs["input_ids"], threshold=0.25, text_threshold=0.2, target_sizes=[image.size[::-1]]
            )
            crops += sum(1 for box in found[0]["boxes"].tolist() if image.crop(tuple(box)).size)
        return crops


class BareDetector:
    """The model and its own processor, in batches, on pictures and phrases that are ready."""

    def __init__(self, detector: str, batch_size: int) -> None:
        from transformers import AutoProcessor, GroundingDinoForObjectDetection

        self._processor = AutoProcessor.from_pretrained(detector)
        self._model: Any = GroundingDinoForObjectDetection.from_pretrained(detector).eval()
        self._batch_size = batch_size

    def __call__(self, rows: Sequence[tuple[Image.Image, list[str]]]) -> int:
        import torch

        found = 0
        for start in range(0, len(rows), self._batch_size):
            images, phrases = zip(*rows[start : start + self._batch_size], strict=True)
            inputs = self._processor(images=list(images), text=list(phrases), return_tensors="pt", padding=True)
            with torch.inference_mode():
                outputs = self._model(**inputs)
            sizes = [image.size[::-1] for image in images]
            found += len(
                self._processor.post_process_grounded_object_detection(
                    outputs, inputs["input_ids"], threshold=0.25, text_threshold=0.2, target_sizes=sizes
                )
            )
        return found


def seconds_a_row(config: BuildConfig, clock: Clock) -> float:
    """Of a whole build without loading and finishing: from when every worker has given its first progress."""
    with tempfile.TemporaryDirectory() as folder:
        plan = make_plan(replace(config, output=str(Path(folder) / "out")))
        seen: set[int] = set()
        began, last, rows = None, 0.0, 0
        for step in run(plan):
            last = clock()
            if began is not None:
                rows += step.rows
            seen.add(step.index)
            if began is None and len(seen) == min(config.workers, len(plan.shards)):
                began = last
        if began is None or not rows:
            raise UserError("too few rows to time; raise --rows")
        return (last - began) / rows


def recorded(config: BuildConfig) -> list[tuple[Image.Image, list[str]]]:
    """What a build's detector is asked: pictures and phrases, in its order."""
    from curation.language.phrases import PhraseExtractor
    from curation.pipeline import ShardMiner

    asked = []
    extractor = PhraseExtractor(config)
    for shard in open_source(config).shards():
        for candidates, _ in ShardMiner(config, extractor, Nothing()).prepare(shard.read()):
            asked += [(c.image, [p.text for p in c.phrases]) for c in candidates if c.image is not None]
    return asked


class Nothing:
    def ground(self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]) -> list[list[list[Box]]]:
        return [[[] for _ in row] for row in phrases]


def speed(rows: int, workers: int, repeats: int, clock: Clock) -> Iterator[Figure]:
    detector = default("detector")
    config = BuildConfig(input=str(corpus(rows)), device="cpu", workers=workers)
    usable, asked = readable(config, rows), recorded(config)
    plain, bare = PlainLoop(detector), BareDetector(detector, config.batch_size)
    some, few = usable[: max(1, rows // 8)], asked[: max(1, rows // 4)]
    plain(some[:4])
    bare(few[: config.batch_size])

    # In turn, so that a slow minute hits all three. A build's rows are the corpus', of which some never reach the
    # detector; for the plain loop they are the readable ones, for the bare detector those that a build asks it.
    ours, theirs, bares = [], [], []
    for _ in range(repeats):
        ours.append(seconds_a_row(config, clock))
        theirs.append(seconds(lambda: plain(some), clock) / len(some))
        bares.append(seconds(lambda: bare(few), clock) / len(few))
    per_asked = [a_row * rows / len(asked) for a_row in ours]
    per_usable = [a_row * rows / len(usable) for a_row in ours]
    note = f"{workers} worker{'s' if workers > 1 else ''}, {clock.__name__}"
    yield ratio_figure("curation.vs_plain_loop", theirs, per_usable, 7.0, note)
    yield ratio_figure("curation.vs_bare_detector", bares, per_asked, 0.95, note)
    yield from text_stage([caption for _, caption in usable], config, repeats, clock)


def seconds(work: Callable[[], object], clock: Clock) -> float:
    began = clock()
    work()
    return clock() - began


def ratio_figure(name: str, theirs: Sequence[float], ours: Sequence[float], bar: float, note: str) -> Figure:
    ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
    rates = f"{1 / statistics.median(ours):.0f} rows/s against {1 / statistics.median(theirs):.0f}"
    spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
    return Figure(name, statistics.median(ratios), "ratio", True, bar, f"{note}; {rates}; each round {spread}")


def text_stage(captions: Sequence[str], config: BuildConfig, repeats: int, clock: Clock) -> Iterator[Figure]:
    """Phrases beside spaCy's own pipe on the same distinct captions."""
    import spacy

    from curation.language.phrases import MODEL, PhraseExtractor

    captions = list(dict.fromkeys(captions))
    extractor, nlp = PhraseExtractor(config), spacy.load(MODEL)

    def phrases() -> None:
        extractor.forget()
        extractor(captions)

    def pipe() -> None:
        for _ in nlp.pipe(captions, batch_size=128):
            pass

    ratio = time_ratio(phrases, pipe, repeats, clock=clock)
    rate = len(captions) / ratio.ours_seconds
    yield Figure("curation.text_rate", rate, "captions/s", True, None, "phrase extraction, one process")
    yield Figure("curation.text_vs_spacy", 1 / ratio.median, "ratio", True, None, f"bare nlp.pipe: {ratio}")


@dataclass(frozen=True)
class SyntheticShard:
    """Rows that no picture repeats, made as they are read; two phrases each."""

    index: int
    size: int

    @property
    def name(self) -> str:
        return f"synthetic-{self.index:05d}"

    def read(self) -> Iterator[Sample]:
        for row in range(self.size):
            coarse = np.random.default_rng([self.index, row]).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(coarse).resize((64, 64), Image.Resampling.NEAREST).save(buffer, "JPEG")
            caption = f"a {('red', 'blue', 'green')[row % 3]} fox next to a {('car', 'chair', 'house')[row // 3 % 3]}"
            yield Sample(f"{self.index:05d}{row:05d}", caption, buffer.getvalue())


class HalfGrounder:
    """A box for each phrase, side by side, without a model."""

    def ground(self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]) -> list[list[list[Box]]]:
        return [[[Box(i / len(row), 0.1, (i + 1) / len(row), 0.9, 0.9)] for i in range(len(row))] for row in phrases]


def mine_synthetic(pairs: int, report: Any) -> None:
    """Everything of a build but the detector: reading, text, decoding, duplicates, crops, shards, report."""
    from curation.executors.local import run_local
    from curation.grounding import with_threshold
    from curation.output.finish import finish
    from curation.output.writer import Layout
    from curation.worker import ShardTask, Worker

    rows = pairs // 2
    sizes = [min(ROWS_PER_SHARD, rows - start) for start in range(0, rows, ROWS_PER_SHARD)]
    config = with_threshold(BuildConfig(), None)
    grounder: Grounder = HalfGrounder()
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(Path(folder), len(sizes))
        tasks = [ShardTask(i, SyntheticShard(i, size), None) for i, size in enumerate(sizes)]  # type: ignore[arg-type]
        for _ in run_local(tasks, Worker(config, layout, "", grounder), 1):
            pass
        head = {"fingerprint": "-", "config": config.to_json(), "detector": "none"}
        tally = finish(layout, config, head)
    report.send((tally.pairs, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def memory(sizes: Sequence[int]) -> Iterator[Figure]:
    """Peak memory of the whole build without a detector (whose memory is a batch's), each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    peaks = []
    for pairs in sizes:
        receive, send = context.Pipe(duplex=False)
        process = context.Process(target=mine_synthetic, args=(pairs, send))
        process.start()
        send.close()
        mined, peak = receive.recv()
        process.join()
        peaks.append(peak)
        yield Figure(f"curation.peak_memory.{pairs}", peak, "MiB", False, None, f"{mined} synthetic pairs, no detector")
    growth = peaks[-1] / peaks[0]
    yield Figure("curation.memory_growth", growth, "ratio", False, 1.5, f"{sizes[-1]} pairs against {sizes[0]}")


def main(argv: list[str] | None = None) -> int:
    try:
        return run_command(lambda: _command(argv))
    except UserError as error:  # the miner's own
        print(f"error: {error}", file=sys.stderr)
        return 2


def _command(argv: list[str] | None) -> None:
    parser = Parser(prog="python -m benchmarks.curation", description=__doc__)
    parser.add_argument("--rows", type=whole(), default=960, help="of mini-LAION")
    parser.add_argument("--workers", type=whole(), default=2)
    parser.add_argument("--repeats", type=whole(), default=3)
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: processor time of one process, for a machine that is busy; it gives no credit for a second core",
    )
    parser.add_argument("--memory", action="store_true", help="peak memory at growing sizes, in place of the speed")
    parser.add_argument("--pairs", type=whole(), nargs="+", default=MEMORY_PAIRS, help="sizes for --memory")
    parser.add_argument("--json", action="store_true", help="one figure a line")
    arguments = parser.parse_args(argv)
    os.environ.setdefault("TQDM_DISABLE", "1")  # transformers' own bars
    if arguments.memory:
        emit(memory(arguments.pairs), arguments.json)
    else:
        cpu = arguments.clock == "cpu"
        workers, clock = (1, time.process_time) if cpu else (arguments.workers, time.perf_counter)
        emit(speed(arguments.rows, workers, arguments.repeats, clock), arguments.json)


if __name__ == "__main__":
    sys.exit(main())
