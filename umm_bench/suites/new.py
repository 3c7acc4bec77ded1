"""Write a suite.toml for folders of pictures: `python -m umm_bench.suites.new DIR`.

DIR has a folder of pictures for each subject. The class nouns are guessed from the folders' names: look at them.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from atomic import whole_file
from umm_bench.cli.arguments import Parser
from umm_bench.cli.commands import run_command
from umm_bench.errors import UserError
from umm_bench.suites.folder import FILE
from umm_bench.suites.reading import pictures

HEAD = """\
# A suite of your own: python -m umm_bench.run --suite folder --suite-path {path} --methods umm

# One table a subject, named after its folder. class_noun: the word for what it is, as prompts say it.
# kind: "object", "live" or "style".
"""
PROMPTS = """
# A prompt names its subject once, as {subject}; one for a pair says {subject_1} and {subject_2}. kind:
# "recontextualise", "accessorise", "property", "style", "two_subjects" or "two_references"; a run takes them by turns.

[[prompts]]
id = "beach"
template = "a {subject} on a beach"
kind = "recontextualise"

[[prompts]]
id = "snow"
template = "a {subject} in the snow"
kind = "recontextualise"

[[prompts]]
id = "hat"
template = "a {subject} wearing a red hat"
kind = "accessorise"

[[prompts]]
id = "purple"
template = "a purple {subject}"
kind = "property"

[[prompts]]
id = "watercolor"
template = "a watercolor painting of a {subject}"
kind = "style"

[[prompts]]
id = "pair-table"
template = "a {subject_1} next to a {subject_2} on a table"
kind = "two_references"

# Pairs: subjects that are drawn in one picture (--pairs).
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, or 2 after one line on an error of the user's."""
    return run_command(lambda: _command(list(sys.argv[1:] if arguments is None else arguments)))


def _command(words: list[str]) -> None:
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = Parser(prog="python -m umm_bench.suites.new", description=summary, epilog=rest.strip())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path, metavar="DIR")
    folder = parser.parse_args(words).folder
    text, empty = suite_text(folder)
    if (folder / FILE).exists():
        raise UserError(f"{folder / FILE} is there already; move it away to have a new one")
    with whole_file(folder / FILE) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    for name in empty:
        print(f"left out, as no picture is in it: {folder / name}")
    print(f"wrote {folder / FILE}: look at its class nouns and prompts")


def suite_text(folder: Path) -> tuple[str, list[str]]:
    """The file's text, and the folders without pictures. UserError where there is no folder with pictures."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder")
    inside = sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))
    found = {f.name: len(pictures(f)) for f in inside}
    names = [name for name, number in found.items() if number]
    if not names:
        hint = "put each subject's pictures into a folder of its own" if pictures(folder) else "nothing was found"
        raise UserError(f"{folder} has no folder with pictures: {hint}")
    parts = [HEAD.format(path=folder)]
    for name in names:
        count = f"{found[name]} picture{'s' if found[name] > 1 else ''}"
        parts.append(f'\n[subjects.{_quoted(name)}]  # {count}\nclass_noun = {_quoted(guess(name))}\nkind = "object"\n')
    parts.append(PROMPTS)
    if len(names) > 1:
        parts.append(f"\n[[pairs]]\nsubjects = [{_quoted(names[0])}, {_quoted(names[1])}]\n")
    return "".join(parts), [name for name, number in found.items() if not number]


def guess(name: str) -> str:
    """The last word of a folder's name: "mug" of "my-mug_2"."""
    words = re.findall(r"[^\W\d_]+", name)
    return words[-1].lower() if words else name


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")  # a JSON string is a TOML one but for DEL


if __name__ == "__main__":
    sys.exit(main())
