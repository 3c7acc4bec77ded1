"""The parser of the curation commands: what it cannot read is said in one line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from curation.errors import UserError

# in bytes; file systems know no longer ones
LONGEST_NAME = 255
LONGEST_PATH = 4000


class Parser(argparse.ArgumentParser):
    """Raises UserError where argparse would print its whole usage; parse where those are caught."""

    def error(self, message: str) -> NoReturn:
        # "argument --limit: must be ..." is argparse's way of saying "--limit must be ..."
        said = re.sub(r"^argument (\S+): (must|invalid) ", r"\1 \2 ", message).removeprefix("argument ")
        raise UserError(f"{said[:500].encode(errors='backslashreplace').decode()} (see --help)")


def number(kind: type) -> Callable[[str], float]:
    """A maker of whole numbers (``int``) or of any (``float``) for argparse's ``type``."""

    def read(text: str) -> float:
        try:
            return kind(text)
        except ValueError:
            shown = ascii(text if len(text) <= 60 else f"{text[:57]}...")
            raise argparse.ArgumentTypeError(
                f"must be a {'whole ' if kind is int else ''}number, not {shown}"
            ) from None

    return read


def printable(text: str) -> str:
    """Text that can be encoded, and be a path: no lone surrogates, no NUL, no name that is too long."""
    if "\0" in text or text.encode(errors="ignore").decode() != text:
        raise argparse.ArgumentTypeError(f"must be text in UTF-8 without NUL, not {text[:60]!a}")
    if len(text.encode()) > LONGEST_PATH or any(len(name) > LONGEST_NAME for name in text.encode().split(b"/")):
        raise argparse.ArgumentTypeError(f"must be shorter: {text[:40]!a} goes on for {len(text)} characters")
    return text


def printable_path(text: str) -> Path:
    return Path(printable(text))
