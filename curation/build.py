"""Command line: ``python -m curation.build --source laion [--input FOLDER_OR_GLOB] [--output data/pairs]``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from curation.arguments import Parser, number, printable
from curation.config import BuildConfig
from curation.errors import UserError
from curation.output.publish import check
from curation.runner import BuildResult, Plan, export, make_plan, publish, read_result, run, write_sets
from curation.worker import Progress as ShardProgress

LINE_SECONDS = 10.0
HOW_TO_NAME_LAION = (
    "no --input: mining mini-LAION, the corpus that ships with the project. For real LAION give --input a folder "
    "of img2dataset .tar shards, or LAION's URL lists (parquet or csv, a file or a glob)"
)


def parse_arguments(argv: Sequence[str] | None) -> BuildConfig:
    parser = Parser(
        prog="python -m curation.build",
        description="Mine (image, caption) rows into grounded subject-caption pairs. Resumes by itself.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    groups: dict[str, argparse._ArgumentGroup] = {}
    for f in fields(BuildConfig):
        about = f.metadata
        if about["group"] not in groups:
            groups[about["group"]] = parser.add_argument_group(about["group"])
        if about["kind"] is bool:
            flag = f"--{f.name.replace('_', '-')}"
            groups[about["group"]].add_argument(flag, action="store_true", help=about["help"].replace("%", "%%"))
            continue
        groups[about["group"]].add_argument(
            f"--{f.name.replace('_', '-')}",
            type=printable if about["kind"] is str else number(about["kind"]),
            default=argparse.SUPPRESS if f.default is None else f.default,  # the help names what there is to name
            choices=about["choices"] or None,
            help=about["help"].replace("%", "%%"),
            metavar=None if about["choices"] else about["kind"].__name__.upper(),
        )
    return BuildConfig(**vars(parser.parse_args(argv)))


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 2 the user can mend it, 130 interrupted (finished shards are kept)."""
    console = Console()
    # transformers draws bars of its own while it loads; one bar at a time is enough.
    os.environ.setdefault("TQDM_DISABLE", "1")
    try:
        config = parse_arguments(argv)
        plan = make_plan(config)
        if config.publish is not None:
            check(config.publish)
        if config.source == "laion" and config.input is None:
            console.print(HOW_TO_NAME_LAION, style="dim", highlight=False)
        if not plan.complete:
            # before the workers begin: by the first progress, shards may be done
            done = [i for i in range(len(plan.shards)) if plan.layout.state(i).is_file()]
            with console.status("loading spaCy and the detector") if console.is_terminal else nothing():
                first = next(progress := run(plan), None)
            show(console, plan, done, progress if first is None else chain_first(first, progress))
        if config.export:
            tars = list(export(plan))
            console.print(f"{len(tars)} tars: {tars[0].parent}", highlight=False, soft_wrap=True)
        if config.sets:
            *sets, card = write_sets(plan)
            console.print(f"{len(sets)} files of several subjects: {card.parent}", highlight=False, soft_wrap=True)
        if config.publish:
            console.print(f"published: {publish(plan)}", highlight=False, soft_wrap=True)
        summarise(console, read_result(plan))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


@contextmanager
def nothing() -> Iterator[None]:
    yield


def chain_first(first: ShardProgress, rest: Iterable[ShardProgress]) -> Iterator[ShardProgress]:
    yield first
    yield from rest


def show(console: Console, plan: Plan, done_before: Sequence[int], progress: Iterable[ShardProgress]) -> None:
    """A bar on a terminal, a line now and then elsewhere."""
    total = plan.rows()
    rows = sum(plan.layout.tally(i).rows_read for i in done_before)
    pairs, shards, start, last = 0, len(done_before), time.monotonic(), 0.0
    if plan.retry:
        console.print(f"trying the failed downloads of {len(plan.retry)} shards again", highlight=False)
    elif rows:
        console.print(f"resuming: {shards} of {len(plan.shards)} shards are done", highlight=False)
    columns = (
        TextColumn("mining"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows · {task.fields[pairs]} pairs · {task.fields[rate]:.0f} rows/s · shard {task.fields[shard]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    begun = rows
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total, completed=rows, pairs=0, rate=0.0, shard="")
        for step in progress:
            rows, pairs, shards = rows + step.rows, pairs + step.pairs, shards + step.done
            elapsed = time.monotonic() - start
            rate = (rows - begun) / max(elapsed, 1e-6)
            shard = f"{shards}/{len(plan.shards)}"
            bar.update(task, completed=rows, pairs=pairs, rate=rate, shard=shard)
            if not console.is_terminal and (elapsed - last >= LINE_SECONDS or step.done):
                last = elapsed
                left = f", {(total - rows) / rate:.0f} s left" if total and rate else ""
                of = f" of {total}" if total else ""
                print(f"mining: {rows}{of} rows, {pairs} pairs, {rate:.0f} rows/s, shard {shard}{left}", flush=True)


def summarise(console: Console, result: BuildResult) -> None:
    tally = result.tally
    table = Table("rejected", "count", title=None, box=None)
    for reason, count in (tally.row_reasons + tally.phrase_reasons).most_common(12):
        table.add_row(reason.replace("_", " "), str(count))
    console.print(table)
    before = " (was complete before)" if result.reused else ""
    console.print(
        f"{tally.pairs} pairs from {tally.rows_kept} of {tally.rows_read} rows in {result.output}{before}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"report: {result.output / 'report.html'}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
