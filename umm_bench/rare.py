"""What rarity does to each method, and what to mine for it: `python -m umm_bench.rare [--run latest] [--focus FILE]`.

Prints how each score falls with how seldom a subject's class was seen, and with how unusual the subject is, for a run
that is in the store. `--counts` takes them from a build of `curation.build` in place of the suite's own. `--focus`
writes the classes to mine, for `python -m curation.build --focus FILE`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from atomic import whole_file
from umm_bench.bench import rarity
from umm_bench.bench.store import Answers, OpenAnswers, Store
from umm_bench.cli.arguments import Parser, file_name
from umm_bench.cli.commands import run_command
from umm_bench.cli.outputs import check_file
from umm_bench.errors import UserError
from umm_bench.weights import first_line

COUNTS = "concept_counts.parquet"


def read_counts(path: Path) -> dict[str, int]:
    """Concept -> count, from a build's folder or its concept_counts.parquet. UserError where it is not one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = path / COUNTS if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"--counts {path}: no {COUNTS} there; name a folder that curation.build wrote")
    try:
        table = pq.read_table(file, columns=["concept", "count"])
    except (pa.ArrowException, OSError, KeyError) as error:
        raise UserError(f"--counts {file} has no concepts with their counts: {first_line(error)}") from error
    return dict(zip(table["concept"].to_pylist(), map(int, table["count"].to_pylist()), strict=True))


def recount(store: Store, run: dict[str, Any], counts: dict[str, int], corpus: str) -> None:
    """Fit a run's scores against other counts; classes that they lack were never seen."""
    run_id = run["run_id"]
    columns = "subject, class_noun, corpus, count, instance_distance, stratum"
    rows = store.rows(f"select {columns} from rarity where run_id = ? order by subject", [run_id])
    rows = [{**row, "corpus": corpus, "count": counts.get(row["class_noun"].lower(), 0)} for row in rows]
    rarity.write(store, run_id, rows)


def crossed(subjects: Sequence[dict[str, Any]], means: dict[str, float]) -> list[tuple[str, ...]]:
    """Class frequent or rare by usual or unusual instance, split at the medians: mean score and subjects of each."""
    known = [s for s in subjects if s["count"] is not None and s["instance_distance"] is not None]
    known = [s for s in known if s["subject"] in means]
    if not known:
        return []
    count, distance = (float(np.median([s[axis] for s in known])) for axis in ("count", "instance_distance"))
    rows = []
    for name, often in (("frequent", True), ("rare", False)):
        cells = []
        for usual in (True, False):
            chosen = [
                means[s["subject"]]
                for s in known
                if (s["count"] >= count) == often and (s["instance_distance"] <= distance) == usual
            ]
            cells.append(f"{np.mean(chosen):.3f} ({len(chosen)})" if chosen else "none")
        rows.append((name, *cells))
    return rows


def show(store: Answers, run_id: str, console: Console) -> None:
    fits = store.rows("select * from rarity_fits where run_id = ? order by axis, metric, method", [run_id])
    table = Table("axis", "score", "method", "slope [95%]", "falls to half at", "note", box=None)
    for row in fits:
        half = "" if row["half_at"] is None else f"{row['half_at']:.3g} [{row['half_low']:.3g}, {row['half_high']:.3g}]"
        slope = f"{row['slope']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        table.add_row(row["axis"], row["metric"], row["method"], slope, half, row["note"])
    if fits:
        console.print(table)
    else:
        console.print(f"no line is fitted: fewer than {rarity.FEWEST} subjects, or nobody knows how rare they are")
    subjects = store.rows("select * from rarity where run_id = ?", [run_id])
    for (method, metric), means in rarity.subject_means(store, run_id).items():
        rows = crossed(subjects, means) if metric in ("identity", "dino") else []
        if rows:
            cross = Table(f"{method}, {metric}", "usual instance", "unusual", box=None)
            for cells in rows:
                cross.add_row(*cells)
            console.print(cross)


def write_focus(store: Answers, run_id: str, path: Path) -> int:
    """The classes to mine, one a line, those that lack most first; how many there are."""
    rows = store.rows("select * from rarity_focus where run_id = ? order by rank", [run_id])
    with whole_file(path) as unfinished:
        lines = [f"# run {run_id}: classes to mine, those that lack most first"]
        lines += [f"# {row['reason']}; seen {row['count']} times\n{row['concept']}" for row in rows]
        unfinished.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(rows)


def latest(store: Answers, run_id: str) -> dict[str, Any]:
    """The run's row, that of the one that ran last for "latest". UserError where there is none or it is unfinished."""
    if run_id == "latest":
        runs = store.rows("select * from runs order by executed desc limit 1")
        run = runs[0] if runs else None
    else:
        run = store.run(run_id)
    if run is None:
        raise UserError(f"no run {run_id} in {store.folder}; `python -m umm_bench.run` makes one")
    if run["finished_inputs"] is None:
        raise UserError(f"run {run['run_id']} is not finished; give its command again: {run['command']}")
    return run


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, or 2 after one line on an error of the user's."""
    return run_command(lambda: _command(list(sys.argv[1:] if arguments is None else arguments)))


def _command(words: list[str]) -> None:
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = Parser(prog="python -m umm_bench.rare", description=summary, epilog=rest.strip())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--run", default="latest", help="id of a run (default: the one that ran last)")
    parser.add_argument("--output", type=Path, default=Path("reports"), help="folder of the store (default: reports)")
    parser.add_argument("--counts", type=Path, help=f"a build of curation.build, or its {COUNTS}")
    parser.add_argument("--focus", type=file_name, help="file to write the classes to mine into")
    options = parser.parse_args(words)
    if options.focus:
        check_file(options.focus, "--focus")
    if options.counts:
        with OpenAnswers(options.output) as store:  # nothing there is not to be made
            run = latest(store, options.run)
        with Store(options.output) as writable:
            recount(writable, run, read_counts(options.counts), str(options.counts))
    with OpenAnswers(options.output) as store:
        run = latest(store, options.run)
        show(store, run["run_id"], Console())
        if options.focus:
            print(f"{write_focus(store, run['run_id'], options.focus)} classes to mine in {options.focus}")


if __name__ == "__main__":
    sys.exit(main())
