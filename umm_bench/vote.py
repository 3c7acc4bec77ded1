"""Ask people which picture is better.

python -m umm_bench.vote --out vote.html              # one page of blind pairs of the latest run, to send to people
python -m umm_bench.vote --read votes-*.json          # what they saved, into the store; the report shows it

Methods, sides and order are hidden; which picture is whose stays in the store alone. Some pairs check that voters look.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from umm_bench.cli.arguments import SEED, Parser, any_text, file_name, some_text, whole
from umm_bench.cli.commands import run_command
from umm_bench.cli.outputs import check_file
from umm_bench.errors import UserError

PAIRS, CHECKS = 40, 4
MOST_PAIRS = 400
MOST_BYTES = 4 * 2**20
"""Of a file of answers, which has some 50 bytes for each."""
MOST_SECONDS = 10**7
"""That an answer took; what is more is a broken clock."""


def _parser() -> Parser:
    parser = Parser(
        prog="python -m umm_bench.vote", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--store", type=Path, default=Path("reports"), metavar="FOLDER", help="of the store (default: %(default)s)")
    add("--run", default="latest", help='run id, as umm_bench.run prints it, or "%(default)s"')
    add("--methods", type=any_text, default="", help="only these, with commas between (default: all of the run)")
    add("--pairs", type=whole(1, MOST_PAIRS), default=PAIRS, help="how many to show (default: %(default)s)")
    add("--checks", type=whole(0, 40), default=CHECKS, help="attention checks among them (default: %(default)s)")
    add("--seed", type=SEED, default=0, help="another draws other pairs (default: %(default)s)")
    add("--out", type=file_name, default=Path("vote.html"), metavar="FILE", help="the page (default: %(default)s)")
    add("--read", type=Path, nargs="+", metavar="FILE", help="files that voters have saved; makes no page")
    return parser


def _command(arguments: Sequence[str] | None) -> None:
    options = _parser().parse_args(arguments)
    if options.read:
        _read(options.read, options.store)
    else:
        check_file(options.out, "--out")
        _ask(options)


def _ask(options: argparse.Namespace) -> None:
    from reports.judges.ballot import write_ballot
    from umm_bench.bench.judging.ballots import draw_ballot
    from umm_bench.bench.keeping.frames import find_run
    from umm_bench.bench.store import OpenAnswers, Store

    methods = [name.strip() for name in options.methods.split(",") if name.strip()]
    with OpenAnswers(options.store) as answers:
        run_id = find_run(answers, options.run)
        ballot = draw_ballot(answers, run_id, options.pairs, options.checks, options.seed, methods)
    with Store(options.store) as store:  # before the page: one that is out and not known could not be read
        store.upsert("ballots", ballot.rows())
    write_ballot(ballot, options.out)
    pairs = sum(question.expects is None for question in ballot.questions)
    print(f"{options.out}: {pairs} pairs and {len(ballot.questions) - pairs} attention checks of {run_id}")


def _read(paths: Sequence[Path], folder: Path) -> None:
    """All files, or none of them."""
    from umm_bench.bench.store import OpenAnswers, Store

    with OpenAnswers(folder) as answers:
        known = {(row["ballot"], row["pair"]) for row in answers.rows("select ballot, pair from ballots")}
    rows = [row for path in paths for row in read_votes(path, known)]
    with Store(folder) as store:
        store.upsert("votes", rows)
    voters = len({row["voter"] for row in rows})
    print(f"{len(rows)} answers of {voters} voter{'s' if voters != 1 else ''}; `python -m reports.render` shows them")


def read_votes(path: Path, known: set[tuple[str, int]]) -> list[dict[str, Any]]:
    """Rows of the table `votes`. UserError for a file that no page of ours has saved, and for pairs that are not
    `known`, by ballot and number.
    """
    from umm_bench.bench.judging.votes import ANSWERS

    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path} is too large for a file of votes")
        told = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is no file of votes: it holds no JSON") from error
    if not isinstance(told, dict) or not isinstance(told.get("answers"), list) or not told["answers"]:
        raise UserError(f"{path} is no file of votes: it has no answers")
    ballot, voter = told.get("ballot"), told.get("voter")
    try:
        voter = some_text(voter if isinstance(voter, str) else "").strip()
    except argparse.ArgumentTypeError:
        raise UserError(f"{path} does not say who has voted") from None
    if not any(ballot == name for name, _ in known):
        raise UserError(f"{path} is of the page '{ballot}', which this store has not made; give its --store")
    rows = {}
    for n, each in enumerate(told["answers"], start=1):
        pair = each.get("pair") if isinstance(each, dict) else None
        if type(pair) is not int or (ballot, pair) not in known or each.get("answer") not in ANSWERS:
            raise UserError(f"{path}: answer {n} is none to a pair of that page; has the file been changed?")
        seconds = each.get("seconds")
        if not isinstance(seconds, int | float) or not 0 <= seconds < MOST_SECONDS:
            seconds = None
        who = {"ballot": ballot, "pair": pair, "voter": voter}
        rows[pair] = {**who, "answer": each["answer"], "seconds": seconds}
    return list(rows.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, or 2 after one line on an error of the user's."""
    return run_command(lambda: _command(arguments))


if __name__ == "__main__":
    sys.exit(main())
