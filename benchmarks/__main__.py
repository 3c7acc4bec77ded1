"""All figures with a bar, measured here, into docs/performance.md: python -m benchmarks [--only sampling,training].

Each benchmark runs in a process of its own, one after another, on a machine that should do nothing else. The page is
written once, at the end, whole or not at all. It keeps what people wrote in it, and the tables of benchmarks that were
not chosen. A benchmark that fails is a row of its table, and the exit code is then 1.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from atomic import whole_file
from figures import Figure
from umm_bench.cli.arguments import Parser, file_name, some_text
from umm_bench.cli.commands import run_command
from umm_bench.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"
SD15 = "--size sd15"
BENCHMARKS = {
    "sampling": "benchmarks.sampling",
    "sampling-sd15": f"benchmarks.sampling {SD15} --steps 10 --batch 1 --repeats 1 --no-naive",
    "training": "benchmarks.training",
    "training-sd15": f"benchmarks.training {SD15} --batch-size 1 --repeats 3",
    "curation": "benchmarks.curation",
    "scoring": "benchmarks.scoring",
    "baselines": "benchmarks.baselines",
    "memory": "benchmarks.memory",
    "reports": "benchmarks.reports",
}
"""By name, the module and the words it is given besides --json. Whose words do not say sd15 run on mini."""
FIELDS = {field.name for field in fields(Figure)}


@dataclass(frozen=True)
class Outcome:
    """What a benchmark printed; `failure` is why it did not come to its end, "" where it did."""

    figures: tuple[Figure, ...]
    failure: str = ""


def measure(words: str) -> Outcome:
    """Run `python -m WORDS --json` to its end; what it says on stderr is shown too."""
    command = [sys.executable, "-m", *shlex.split(words), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    sys.stderr.write(done.stderr)
    found, unreadable = [], ""
    for line in done.stdout.splitlines():
        try:
            found.append(Figure(**{name: value for name, value in json.loads(line).items() if name in FIELDS}))
        except (ValueError, TypeError, AttributeError):
            unreadable = f"it printed what is no figure: {line[:80]}"
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return Outcome(tuple(found), f"exit code {done.returncode}: {said[-1] if said else 'it said nothing'}")
    return Outcome(tuple(found), unreadable or ("" if found else "it printed no figure"))


def table(words: str, outcome: Outcome, where: str) -> str:
    """One benchmark's part of the page, in Markdown; `where` names commit, day and machine."""
    rows = ["| figure | measured | bar | | over the rounds |", "|---|---|---|---|---|"]
    for figure in outcome.figures:
        bar = "" if figure.bar is None else f"{'at least' if figure.higher_is_better else 'at most'} {figure.bar:g}"
        reached = {None: "", True: "reached", False: "**below its bar**"}[figure.ok]
        cells = (f"`{figure.name}`", f"{figure.value:.3g} {figure.unit}", bar, reached, _cell(figure.note))
        rows.append(f"| {' | '.join(cells)} |")
    if outcome.failure:
        rows.append(f"| **failed** | | | | {_cell(outcome.failure)} |")
    return "\n".join([f"`python -m {words}`, {where}", "", *rows])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def with_tables(page: str, tables: Mapping[str, str]) -> str:
    """`page` with these tables between their marks; one that it has no marks for is put at its end."""
    for name, text in tables.items():
        begin, end = f"<!-- measured: {name} -->", f"<!-- end: {name} -->"
        marked = f"{begin}\n\n{text}\n\n{end}"
        place = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.S)
        if place.search(page):
            page = place.sub(lambda found, marked=marked: marked, page)  # type: ignore[misc]
        else:
            page = f"{page.rstrip()}\n\n## {name}\n\n{marked}\n"
    return page


def _where() -> str:
    """The commit, the day and the machine, as read at the start: a commit made meanwhile was not measured."""
    import torch  # noqa: F401  # `machine` names the GPUs only where torch is loaded already

    from umm_bench.bench.keeping.provenance import commit_of, machine

    commit, dirty = commit_of(ROOT)
    about = machine()
    parts = [
        f"commit {commit[:10] if commit else 'unknown'}{' with changes' if dirty else ''}",
        f"{datetime.now(UTC):%Y-%m-%d}",
        f"{about['cores']} cores of {about['processor']}",
        *about["gpus"],
    ]
    return ", ".join(parts)


def _chosen(only: str | None) -> list[str]:
    """UserError for a name that is none of BENCHMARKS."""
    if only is None:
        return list(BENCHMARKS)
    names = [name.strip() for name in only.split(",") if name.strip()]
    for name in names:
        if name not in BENCHMARKS:
            raise UserError(f"--only: there is no benchmark '{name}'; choose from {', '.join(BENCHMARKS)}")
    if not names:
        raise UserError(f"--only names none; choose from {', '.join(BENCHMARKS)}")
    return list(dict.fromkeys(names))


def _outcomes(names: Sequence[str]) -> Iterator[tuple[str, Outcome]]:
    for number, name in enumerate(names, 1):
        print(f"{number}/{len(names)} {name}: python -m {BENCHMARKS[name]}", flush=True)
        outcome = measure(BENCHMARKS[name])
        for figure in outcome.figures:
            verdict = {None: "", True: "  reached", False: f"  BELOW ITS BAR {figure.bar:g}"}[figure.ok]
            print(f"  {figure.name} {figure.value:.3g} {figure.unit}{verdict}", flush=True)
        if outcome.failure:
            print(f"  FAILED: {outcome.failure}", flush=True)
        yield name, outcome


def _command(args: argparse.Namespace) -> int:
    from umm_bench.cli.outputs import check_file

    names = _chosen(args.only)
    check_file(args.output, "--output")
    where = _where()
    outcomes = dict(_outcomes(names))
    page = args.output.read_text(encoding="utf-8") if args.output.exists() else "# Performance\n"
    tables = {name: table(BENCHMARKS[name], outcome, where) for name, outcome in outcomes.items()}
    with whole_file(args.output) as unfinished:
        unfinished.write_text(with_tables(page, tables), encoding="utf-8")
    print(f"wrote {args.output}")
    return int(any(outcome.failure for outcome in outcomes.values()))


def main(argv: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", type=some_text, metavar="NAMES", help=f"with commas, of {', '.join(BENCHMARKS)}")
    parser.add_argument("--output", type=file_name, default=PAGE, help="the page (default: docs/performance.md)")
    return run_command(lambda: _command(parser.parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
