"""Are the metrics right? Measured on pictures whose truth is known: `python -m umm_bench.validate_metrics [--json]`.

Labels of several subjects (`several`): pairs that the mini world composes, as asked and in each way that two subjects
can go wrong. Thresholds were chosen on other pairs, of other concepts.
"""

from __future__ import annotations

import sys
from argparse import RawDescriptionHelpFormatter
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from figures import Figure, emit
from umm_bench.cli.arguments import Parser, whole
from umm_bench.cli.commands import quiet_libraries, run_command
from umm_bench.metrics.several import LABELS, SeveralConfig
from umm_bench.mini.evaluation.intervals import bootstrap
from umm_bench.mini.evaluation.several import TRIAL, TUNE, Labelled, labelled
from umm_bench.mini.evaluation.truth import decoded

PAIRS = 64
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
    args = parser.parse_args(argv)
    quiet_libraries()
    key, config = TUNE if args.tune else TRIAL, SeveralConfig(args.encoder, args.detector)
    rows = [*labelled(args.pairs, key, config)]
    drawn = [*labelled(-(-args.pairs // DECODED), key, config, decoded)]
    told = [*figures(rows), _share(f"{NAME}.decoded", drawn)]
    emit([*told, *(confusion(rows) if args.json else ())], args.json)
    if not args.json:
        Console().print(_matrix(rows))


if __name__ == "__main__":
    sys.exit(main())
