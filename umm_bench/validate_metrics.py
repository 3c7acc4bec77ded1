"""Are the metrics right? Measured on pictures whose truth is known: `python -m umm_bench.validate_metrics [--json]`.

Labels of several subjects (`several`): pairs that the mini world composes, as asked and in each way that two subjects
can go wrong. Thresholds were chosen on other pairs, of other concepts.

Every other metric: how well it tells a picture of the subject from a near miss, another drawing of its class, another
thing and an empty scene (AUC, rank correlation), and self-tests that any encoder can be put to: itself against an
impostor on the reference's own background, against a copy of the reference, against its scene without it, and two
subjects against the same two with looks changed over.
"""

from __future__ import annotations

import shlex
import sys
from argparse import Namespace, RawDescriptionHelpFormatter
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from figures import Figure, emit
from umm_bench.bench.keeping.judges import keep_trial
from umm_bench.bench.store import Store
from umm_bench.cli.arguments import Parser, whole
from umm_bench.cli.commands import quiet_libraries, run_command
from umm_bench.cli.outputs import check_folder
from umm_bench.errors import UserError
from umm_bench.metrics.base import METRICS
from umm_bench.metrics.several import LABELS, SeveralConfig
from umm_bench.mini.evaluation.intervals import bootstrap
from umm_bench.mini.evaluation.several import TRIAL, TUNE, ComposedSuite, Labelled, labelled, pairs
from umm_bench.mini.evaluation.trial import WRONG, Trial, agreement, self_test, self_tests, values_of
from umm_bench.mini.evaluation.truth import decoded

PAIRS = 64
SUBJECTS = 24
FIDELITY = (
    *("dino", "dino_input", "dino_crop", "clip_i", "clip_i_input", "clip_i_crop"),
    *("masc", "gallery_rank", "copy_paste"),
)
PROMPT = ("clip_t", "masc_prompt")
"""Metrics of the picture's words: right is the background that is asked for."""
DECODED = 4  # of so many pairs, the pictures of one also as the family's VAE decodes them, like all that is generated
AIM = 0.85
NAME = "validate.failure_label"


def figures(rows: Sequence[Labelled]) -> Iterator[Figure]:
    """The share of right labels, in all, of each true label, and of pairs of one class and of two.

    Intervals are of pairs drawn with replacement: the labels of a pair stand and fall together.
    """
    yield _share(f"{NAME}.accuracy", rows, AIM)
    for name, one in (("one_class", True), ("two_classes", False)):
        if of := [row for row in rows if row.pair.one_class == one]:
            yield _share(f"{NAME}.{name}", of)
    for truth in LABELS:
        if of := [row for row in rows if row.truth == truth]:
            yield _share(f"{NAME}.{truth}", of)


def confusion(rows: Sequence[Labelled]) -> Iterator[Figure]:
    """How many subjects of each true label got each label."""
    counts = Counter((row.truth, row.label) for row in rows)
    for truth in LABELS:
        for label in LABELS:
            name = f"{NAME}.confusion.{truth}.{label}"
            yield Figure(name, counts[truth, label], "subjects", truth == label, note=f"is {truth}, labelled {label}")


def on_trial(subjects: int, encoder: str, clip: str, detector: str) -> Iterator[Figure]:
    """Each metric against the truth of pictures of one subject."""
    settings = {"model": encoder, "detector": detector}
    with TemporaryDirectory() as folder:
        trial: Any = Trial(Path(folder), subjects)
        for name in (*FIDELITY, *PROMPT):
            metric_class = METRICS.load(name)
            known = [field.name for field in fields(metric_class.config_class)]
            given = settings | ({"model": clip} if name.startswith("clip") else {})
            config = metric_class.config_class(**{key: value for key, value in given.items() if key in known})
            for row, values in values_of(metric_class(config, trial), trial.shown).items():
                if name in PROMPT:
                    yield from agreement(row, values, ["right"], ["elsewhere"])
                    continue
                if name == "copy_paste":
                    values = {key: -value for key, value in values.items()}  # of these the less the better
                    yield from agreement(row, values, ["right"], ["copy"])
                else:
                    yield from agreement(row, values, ["right"], WRONG)
                yield from self_tests(row, values)


def swapped(number: int, key: str, args: Namespace) -> Iterator[Figure]:
    """Whether a metric tells two subjects from the same two with looks changed over, of pairs of two classes."""
    with TemporaryDirectory() as folder:
        composed: Any = ComposedSuite(Path(folder), [p for p in pairs(number, key) if not p.one_class], np.asarray)
        shown = [(pair.key, way.kind, sample) for pair, way, sample in composed.samples()]
        chosen = [(name, kind, sample) for name, kind, sample in shown if kind in ("right", "swap")]
        kinds = {sample.key: (name, kind) for name, kind, sample in chosen}
        for metric in ("dino", "dino_crop", "clip_i", "clip_i_crop", "several"):
            metric_class = METRICS.load(metric)
            known = [field.name for field in fields(metric_class.config_class)]
            given = {"model": args.clip if metric.startswith("clip") else args.encoder, "detector": args.detector}
            config = metric_class.config_class(**{name: value for name, value in given.items() if name in known})
            found: dict[tuple[str, str], list[float]] = {}
            for row in metric_class(config, composed).score([sample for *_, sample in chosen]):
                found.setdefault(kinds[row.sample_key], []).append(row.value)
            names = sorted({name for name, _ in found})
            right, wrong = ([float(np.mean(found[name, kind])) for name in names] for kind in ("right", "swap"))
            yield self_test("swapped", metric, right, wrong, "both themselves above looks changed over")


def _share(name: str, rows: Sequence[Labelled], aim: float | None = None) -> Figure:
    keys = sorted({row.pair.key for row in rows})
    right = np.array([[r.label == r.truth for r in rows if r.pair.key == key].count(True) for key in keys])
    shown = np.array([sum(r.pair.key == key for r in rows) for key in keys])
    low, high = bootstrap(lambda drawn: float(right[drawn].sum() / shown[drawn].sum()), len(keys))
    note = f"95% {low:.3f} to {high:.3f}, {len(rows)} subjects of {len(keys)} pairs"
    return Figure(name, round(float(right.sum() / shown.sum()), 4), "share", True, aim, note)


def _matrix(rows: Sequence[Labelled]) -> Table:
    table = Table("is \\ labelled", *LABELS)
    counts = Counter((row.truth, row.label) for row in rows)
    for truth in LABELS:
        table.add_row(truth, *(str(counts[truth, label] or "") for label in LABELS))
    return table


def main(argv: list[str] | None = None) -> int:
    return run_command(lambda: _validate(argv))


def _validate(argv: list[str] | None) -> None:
    parser = Parser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--pairs", type=whole(1), default=PAIRS, help=f"composed pairs of subjects (default {PAIRS})")
    parser.add_argument("--tune", action="store_true", help="the pairs that things are chosen on, not those reported")
    parser.add_argument("--encoder", default="mini", help="the image encoder: mini, a folder or a hub id")
    parser.add_argument("--detector", default="mini", help="the detector: mini, a folder or a hub id")
    parser.add_argument("--clip", default="mini", help="the CLIP: mini, a folder or a hub id")
    parser.add_argument("--subjects", type=whole(2), default=SUBJECTS, help=f"composed alone (default {SUBJECTS})")
    parser.add_argument("--store", type=Path, metavar="FOLDER", help="keep the figures there too, for the report")
    args = parser.parse_args(argv)
    if args.store and args.tune:
        raise UserError("--store keeps what is reported, and --tune measures what things were chosen on")
    if args.store:
        check_folder(args.store, "--store")
    quiet_libraries()
    key, config = TUNE if args.tune else TRIAL, SeveralConfig(args.encoder, args.detector)
    rows = [*labelled(args.pairs, key, config)]
    drawn = [*labelled(-(-args.pairs // DECODED), key, config, decoded)]
    told = [*figures(rows), _share(f"{NAME}.decoded", drawn)]
    trial = [*on_trial(args.subjects, args.encoder, args.clip, args.detector), *swapped(args.pairs, key, args)]
    emit([*told, *(confusion(rows) if args.json else ()), *trial], args.json)
    if not args.json:
        Console().print(_matrix(rows))
    if args.store:
        command = shlex.join(["python", "-m", "umm_bench.validate_metrics", *(sys.argv[1:] if argv is None else argv)])
        with Store(args.store) as store:
            keep_trial(store, [*told, *confusion(rows), *trial], datetime.now(UTC).replace(tzinfo=None), command)


if __name__ == "__main__":
    sys.exit(main())
