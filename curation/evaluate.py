"""Precision and recall of what is mined, against a corpus whose truth is known: ``python -m curation.evaluate``.

The miner sees the corpus as it sees any other; the truth (``truth/truth.parquet`` in the corpus' folder) is read here,
after mining. The detector runs once over the corpus, thresholds and filters are applied to what it found.

A mined pair is right when an object that its phrase names is in the picture, at IoU 0.5 with its box. Recall is of the
objects that captions truly name, in the pictures that a miner should keep.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from rich.console import Console
from rich.table import Table

from curation.arguments import Parser, number, printable, printable_path
from curation.config import BuildConfig
from curation.defaults import default
from curation.errors import UserError
from curation.grounding import Grounder, load_grounder, with_threshold
from curation.grounding.base import OPERATING_POINT
from curation.output.writer import write_text
from curation.quality.curve import write_curve
from curation.quality.truth import Score, TrueRow, read_truth, score, score_by_dirt
from curation.records import Box, Pair
from curation.sources import open_source
from curation.vision.models import PairModels
from figures import Figure, emit

if TYPE_CHECKING:
    from curation.language.phrases import PhraseExtractor
    from curation.pipeline import Candidate, ShardMiner
    from curation.vision.clip import ClipScorer

EVALUATED_SEED, TUNING_SEED = 0, 1
TUNING_SIZE = 1440
RATE = 0.05
PRECISION_BAR, RECALL_BAR = 0.90, 0.60
# The detector runs at this threshold; everything stricter is applied to what it found.
FLOOR = 0.05
CURVE = [round(0.05 * step, 2) for step in range(1, 20)]
FINE_CURVE = [round(0.02 * step, 2) for step in range(3, 48)]
# What takes a filter out of the pipeline.
ABLATIONS: dict[str, dict[str, Any]] = {
    "NSFW and watermark scores": {"max_punsafe": 1.0, "max_pwatermark": 1.0},
    "near duplicates": {"near_duplicate_bits": -1},
    "box area and crop size": {"min_box_area": 0.0, "max_box_area": 1.0, "min_crop_side": 1},
    "class-agnostic NMS": {"nms_iou": 1.0},
    "several instances": {"max_instances": sys.maxsize},
    "crop scores by CLIP": {"min_clip_score": -1.0},
}


class ReplayGrounder:
    """Asks the detector once for each (image, phrases), at the floor; then gives the boxes above ``threshold``."""

    def __init__(self, detector: Grounder) -> None:
        self.threshold = FLOOR
        self._detector = detector
        self._found: dict[tuple[bytes, tuple[str, ...]], list[list[Box]]] = {}

    def ground(self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]) -> list[list[list[Box]]]:
        keys = [(image.tobytes(), tuple(wanted)) for image, wanted in zip(images, phrases, strict=True)]
        new = {key: i for i, key in enumerate(keys) if key not in self._found}
        fresh = self._detector.ground([images[i] for i in new.values()], [phrases[i] for i in new.values()])
        self._found.update(zip(new, fresh, strict=True))
        return [[[box for box in boxes if box.score >= self.threshold] for boxes in self._found[key]] for key in keys]


class ReplayClip:
    """Asks the CLIP once for each (crop, phrase)."""

    def __init__(self, clip: ClipScorer) -> None:
        self._clip = clip
        self._found: dict[tuple[bytes, str], float] = {}

    def score(self, crops: Sequence[Image.Image], phrases: Sequence[str]) -> list[float]:
        keys = [(crop.tobytes(), phrase) for crop, phrase in zip(crops, phrases, strict=True)]
        new = {key: i for i, key in enumerate(keys) if key not in self._found}
        fresh = self._clip.score([crops[i] for i in new.values()], [phrases[i] for i in new.values()])
        self._found.update(zip(new, fresh, strict=True))
        return [self._found[key] for key in keys]


@dataclass
class Evaluation:
    """A corpus with what the models found in it, to be mined again and again with other settings."""

    corpus: Path
    config: BuildConfig
    truth: dict[str, TrueRow]
    grounder: ReplayGrounder
    extractor: PhraseExtractor
    models: PairModels = field(default_factory=PairModels)

    def __post_init__(self) -> None:
        self._chunks = self._prepare(self.config)

    def _miner(self, config: BuildConfig) -> ShardMiner:
        from curation.pipeline import ShardMiner

        models = replace(self.models, min_clip_score=config.min_clip_score)
        return ShardMiner(config, self.extractor, self.grounder, models)

    def _prepare(self, config: BuildConfig) -> list[list[Candidate]]:
        # One miner for all shards, so that duplicates across them are told as a build's last pass tells them.
        shards = open_source(replace(config, input=str(self.corpus))).shards()
        rows = chain.from_iterable(shard.read() for shard in shards)
        return [candidates for candidates, _ in self._miner(config).prepare(rows)]

    def mine(self, threshold: float, changes: Mapping[str, Any] | None = None) -> list[Pair]:
        """The pairs at a threshold, with some settings changed."""
        config = replace(self.config, box_threshold=threshold, **(changes or {}))
        chunks = self._prepare(config) if changes else self._chunks
        self.grounder.threshold = threshold
        miner = self._miner(config)
        return [pair for chunk in chunks for pair in miner.ground(chunk)]

    def curve(self, thresholds: Sequence[float]) -> Iterator[tuple[float, Score]]:
        for threshold in thresholds:
            yield threshold, score(self.mine(threshold), self.truth)


def load_evaluation(config: BuildConfig, corpus: Path, detector: str) -> Evaluation:
    """Reads the truth and loads the models. Raises `UserError`: no truth, no detector."""
    from curation.language.phrases import PhraseExtractor

    class KeepingExtractor(PhraseExtractor):
        def forget(self) -> None:
            """Every setting has the same captions."""

    truth = read_truth(corpus)
    grounder = ReplayGrounder(load_grounder(replace(config, box_threshold=FLOOR), detector))
    models = PairModels.load(config)
    if models.clip is not None:
        models.clip = ReplayClip(models.clip)  # type: ignore[assignment]  # all that `judge` needs of it
    return Evaluation(corpus, config, truth, grounder, KeepingExtractor(config), models)


def best_threshold(curve: Sequence[tuple[float, Score]]) -> tuple[float, Score]:
    """The threshold of the greatest F1 at the asked precision; of the greatest precision where none reaches it.

    A good detector has the precision at any threshold: what little recall a low one adds is not worth its false boxes.
    The precision counts less its standard error: another corpus should reach the bar, not this one only.
    """
    good = [point for point in curve if point[1].precision - point[1].standard_error >= PRECISION_BAR]
    if good:
        return max(good, key=lambda point: statistics.harmonic_mean([point[1].precision, point[1].recall]))
    return max((point for point in curve if point[1].mined), key=lambda point: point[1].precision)


def default_corpus(size: int | None, seed: int) -> Path:
    found = [entry for entry in entry_points(group="curation.defaults") if entry.name == "corpus"]
    if not found:
        raise UserError("no default corpus is installed; name one with --input")
    return Path(found[0].load()(size, seed))


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m curation.evaluate", description=__doc__)
    parser.add_argument("--input", type=printable_path, help="corpus with a truth folder; left out, the default corpus")
    parser.add_argument("--size", type=number(int), help="rows of the default corpus")
    parser.add_argument(
        "--detector", type=printable, nargs="+", help="zero-shot detectors, of which only --tune takes several"
    )
    parser.add_argument("--box-threshold", type=number(float), help="left out, the checkpoint's operating point")
    parser.add_argument(
        "--clip", type=printable, help="CLIP that scores crops, as in curation.build; left out, none does"
    )
    parser.add_argument("--min-clip-score", type=number(float), default=BuildConfig.min_clip_score)
    parser.add_argument("--device", type=printable, default="auto")
    parser.add_argument(
        "--csv", type=printable_path, help="also write the curve over the threshold here, and a plot beside it"
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="find a threshold on a corpus that is not the evaluated one: of the greatest F1 at precision 0.90, or, "
        "with --false-accepts or --labels, at a rate of boxes for absent things",
    )
    parser.add_argument(
        "--false-accepts",
        type=number(float),
        nargs="+",
        metavar="RATE",
        help="with --tune: find the threshold at which so great a share of phrases for absent things gets a box",
    )
    parser.add_argument(
        "--labels",
        type=printable_path,
        help=f"with --tune: your own pictures' labels, as COCO's or LVIS' json, at {RATE:g} without --false-accepts",
    )
    parser.add_argument(
        "--images", type=printable_path, help="folder of the pictures of --labels; left out, where the labels are"
    )
    parser.add_argument(
        "--save",
        type=printable,
        nargs="?",
        const="",
        metavar="FILE",
        help=f"with --tune: keep it as the checkpoint's {OPERATING_POINT}, or in a file for --operating-point",
    )
    parser.add_argument("--json", action="store_true", help="one figure a line")
    return parser.parse_args(argv)


def tune_at_rates(arguments: argparse.Namespace, config: BuildConfig, detectors: Sequence[str]) -> None:
    from curation.quality.labels import of_corpus, of_json
    from curation.quality.tuning import figures, save, tune
    from curation.quality.tuning import show as show_tuned

    rates = arguments.false_accepts or [RATE]
    if not all(0 < rate < 1 for rate in rates):
        raise UserError(f"--false-accepts must be between 0 and 1, not {next(r for r in rates if not 0 < r < 1)}")
    if arguments.labels:
        labelled, missing = of_json(arguments.labels, arguments.images or arguments.labels.parent)
        name = arguments.labels.name
        if missing:
            print(f"{missing} pictures of {name} are not there", file=sys.stderr)
    else:
        corpus = arguments.input or default_corpus(arguments.size or TUNING_SIZE, TUNING_SEED)
        labelled, name = of_corpus(corpus, config), corpus.name
    tuned = list(tune(labelled, detectors, rates, config))
    path = None if arguments.save is None else save(tuned, name, arguments.save)
    if arguments.json:
        emit(figures(tuned), True)
    else:
        show_tuned(tuned, name)
        if path is not None:
            Console().print(f"saved: {path}", highlight=False, soft_wrap=True)


def tune(arguments: argparse.Namespace, config: BuildConfig, detector: str) -> None:
    corpus = arguments.input or default_corpus(arguments.size or TUNING_SIZE, TUNING_SEED)
    threshold, reached = best_threshold(list(load_evaluation(config, corpus, detector).curve(FINE_CURVE)))
    found = {"box_threshold": threshold, "precision": round(reached.precision, 3), "recall": round(reached.recall, 3)}
    print(json.dumps({**found, "corpus": corpus.name}))
    if arguments.save is not None:
        if not arguments.save and not Path(detector).is_dir():
            raise UserError(f"--save: {detector} is no local checkpoint; pass --box-threshold {threshold} instead")
        file = Path(arguments.save) if arguments.save else Path(detector) / OPERATING_POINT
        write_text(file, json.dumps({"box_threshold": threshold}) + "\n")


def evaluate(arguments: argparse.Namespace, config: BuildConfig, detector: str) -> None:
    corpus = arguments.input or default_corpus(arguments.size, EVALUATED_SEED)
    threshold = with_threshold(config, detector).box_threshold
    assert threshold is not None  # `with_threshold` gives one
    evaluation = load_evaluation(config, corpus, detector)
    pairs = evaluation.mine(threshold)
    whole, by_dirt = score(pairs, evaluation.truth), score_by_dirt(pairs, evaluation.truth)
    curve = list(evaluation.curve(CURVE))
    ablations = {name: score(evaluation.mine(threshold, off), evaluation.truth) for name, off in ABLATIONS.items()}
    if arguments.csv:
        write_curve(arguments.csv, curve, (threshold, whole), PRECISION_BAR, RECALL_BAR)
    if not arguments.json:
        rows = Counter(row.dirt for row in evaluation.truth.values())
        show("kind of dirt", {f"{kind or 'none'} ({rows[kind]} rows)": s for kind, s in by_dirt.items()})
        show("threshold", {f"{at:.2f}": s for at, s in curve})
        show("without", {"(every filter on)": whole, **ablations})
    note = f"box_threshold {threshold:g}, {f'crops at {config.min_clip_score:g}, ' if config.clip else ''}{corpus.name}"
    emit(
        [
            Figure("curation.precision", whole.precision, "share", True, PRECISION_BAR, note),
            Figure("curation.recall", whole.recall, "share", True, RECALL_BAR, note),
        ],
        arguments.json,
    )


def show(title: str, scores: Mapping[str, Score]) -> None:
    table = Table(title, "pairs", "right", "precision", "named", "found", "recall", box=None)
    for name, s in scores.items():
        precision, recall = (f"{v:.3f}" if v == v else "-" for v in (s.precision, s.recall))
        table.add_row(name, str(s.mined), str(s.right), precision, str(s.named), str(s.found), recall)
    Console().print(table, "")


def main(argv: Sequence[str] | None = None) -> int:
    os.environ.setdefault("TQDM_DISABLE", "1")  # transformers' own bars
    try:
        arguments = parse_arguments(argv)
        config = BuildConfig(
            device=arguments.device,
            box_threshold=arguments.box_threshold,
            clip=arguments.clip,
            min_clip_score=arguments.min_clip_score,
        )
        detectors = arguments.detector or [default("detector")]
        at_rates = arguments.false_accepts is not None or arguments.labels is not None
        if at_rates and not arguments.tune:
            raise UserError(f"{'--labels' if arguments.labels else '--false-accepts'} is for --tune")
        if arguments.images and not arguments.labels:
            raise UserError("--images is for --labels")
        if at_rates:
            tune_at_rates(arguments, config, detectors)
        elif len(detectors) > 1:
            raise UserError("several detectors are compared with --tune --false-accepts RATE; name one")
        else:
            (tune if arguments.tune else evaluate)(arguments, config, detectors[0])
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
