"""Suites as data: `python -m umm_bench.suites list`, `python -m umm_bench.suites show NAME --suite-path DIR`.

`show` prints one JSON object: subjects and pairs, each with its prompts, and what was left out and why.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from umm_bench.cli.arguments import Parser
from umm_bench.cli.commands import run_command
from umm_bench.methods import Case
from umm_bench.suites.base import SUITES, Suite, load_suite, omitted, strata


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, or 2 after one line on an error of the user's."""
    return run_command(lambda: _command(list(sys.argv[1:] if arguments is None else arguments)))


def _command(words: list[str]) -> None:
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = Parser(prog="python -m umm_bench.suites", description=summary, epilog=rest.strip())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the suites that are installed")
    show = commands.add_parser("show", help="one suite, as JSON")
    show.add_argument("name", metavar="NAME")
    show.add_argument("--suite-path", help="folder of the suite's data, where the suite needs one")
    options = parser.parse_args(words)
    if options.command == "show":
        print(json.dumps(as_data(load_suite(options.name, options.suite_path)), indent=1, ensure_ascii=False))
        return
    for name in SUITES.names():
        suite = SUITES.load(name)
        module = sys.modules[suite.__module__].__doc__ or ""
        print(f"{name}/{suite.version}", module.splitlines()[0] if module else "", sep="\t")


def as_data(suite: Suite) -> dict[str, Any]:
    """All of a suite but its pictures, which are named."""
    return {
        "name": suite.name,
        "version": suite.version,
        "subjects": [
            {
                "id": subject.id,
                "class_noun": subject.class_noun,
                "kind": subject.kind,
                "references": [str(path) for path in subject.references],
                "held_out": [str(path) for path in subject.held_out],
                "prompts": _prompts(suite, Case((subject,))),
            }
            for subject in suite.subjects()
        ],
        "pairs": [
            {"id": pair.id, "subjects": [subject.id for subject in pair.subjects], "prompts": _prompts(suite, pair)}
            for pair in suite.pairs()
        ],
        "concept_counts": dict(suite.concept_counts()),
        "strata": dict(strata(suite)),
        "omitted": omitted(suite),
    }


def _prompts(suite: Suite, case: Case) -> list[dict[str, str]]:
    return [asdict(prompt) for prompt in suite.prompts(case)]


if __name__ == "__main__":
    sys.exit(main())
