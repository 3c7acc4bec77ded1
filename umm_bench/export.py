"""Take a run out of the store, as parquet or CSV files: `python -m umm_bench.export --output FOLDER`.

`results` has a row for each score with all that is known of its picture; the other files are the tables of the same
name, of this run only. Also of a run that is still drawing.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from atomic import whole_folder
from umm_bench.bench.keeping.frames import RESULTS, TABLES, find_run
from umm_bench.bench.store import OpenAnswers
from umm_bench.cli.arguments import Parser
from umm_bench.cli.commands import run_command
from umm_bench.cli.outputs import check_folder
from umm_bench.errors import UserError

OPTIONS = {"parquet": "format parquet, compression zstd", "csv": "format csv, header"}
MANIFEST = "export.json"


def export(store: Path, run: str, output: Path, kind: str) -> dict[str, int]:
    """Writes the files of a run into `output`, all or none; gives their rows by name. An earlier export may be there.

    UserError for a store or a run that is not there, and for a folder that holds something else.
    """
    if output.exists() and any(output.iterdir()) and not (output / MANIFEST).is_file():
        raise UserError(f"--output {output} holds other files; name a new folder, or one of an earlier export")
    with OpenAnswers(store) as answers, whole_folder(output) as folder:
        run_id = find_run(answers, run)
        queries = {
            "results": (RESULTS, [str(store.resolve()), run_id]),
            **{n: (q, [run_id]) for n, q in TABLES.items()},
        }
        rows = {}
        for name, (query, values) in queries.items():
            target = str(folder / f"{name}.{kind}").replace("'", "''")
            copied = answers.connection.execute(f"copy ({query}) to '{target}' ({OPTIONS[kind]})", values).fetchone()
            rows[name] = copied[0] if copied else 0
        (folder / MANIFEST).write_text(json.dumps({"run": run_id, "store": str(store), "rows": rows}, indent=1))
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, or 2 after one line on an error of the user's."""
    return run_command(lambda: _command(list(sys.argv[1:] if arguments is None else arguments)))


def _command(words: list[str]) -> None:
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = Parser(
        prog="python -m umm_bench.export",
        description=summary,
        epilog=rest.strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--store", type=Path, default=Path("reports"), help="folder of the store (default: reports)")
    parser.add_argument("--run", default="latest", help='run id, as umm_bench.run prints it, or "%(default)s"')
    parser.add_argument("--format", choices=sorted(OPTIONS), default="parquet", help="(default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="folder for the files")
    options = parser.parse_args(words)
    check_folder(options.output, "--output")
    for name, rows in export(options.store, options.run, options.output, options.format).items():
        print(f"{options.output / name}.{options.format}  {rows} rows")


if __name__ == "__main__":
    sys.exit(main())
