"""The words of a command line as values that can be used: a number in its range, text, a file's name.

Each maker gives a `type=` for argparse. What does not fit ends the command with one line and exit code 2 (`Parser`).
"""

import argparse
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from umm_bench.errors import UserError

MOST_STEPS = 1000
"""Denoising steps: no Stable Diffusion 1.x or 2.x was trained with more."""
MOST_GUIDANCE = 1000.0
"""Far above what draws anything, far below what is no number any more."""
MANY = 10**9
"""More than anybody counts to, and still an int for every library."""


class Parser(argparse.ArgumentParser):
    """What it cannot read is a UserError, so that the command says it in one line. Parse within `run_command`."""

    def error(self, message: str) -> NoReturn:
        # "argument --steps: must be ..." is argparse's way of saying "--steps must be ..."
        said = re.sub(r"^argument (\S+): (must|is) ", r"\1 \2 ", message)
        raise UserError(f"{said.removeprefix('argument ')} (see --help)")


def whole(least: int = 1, most: int = MANY) -> Callable[[str], int]:
    """A whole number from `least` to `most`."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a whole number, not {_short(text)}") from None
        _check_range(value, least, most, False, text)
        return value

    return read


def real(least: float = -math.inf, most: float = math.inf, above: bool = False) -> Callable[[str], float]:
    """A finite number from `least`, or `above` it, to `most`."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a number, not {_short(text)}") from None
        if not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"must be a finite number, not {_short(text)}")
        _check_range(value, least, most, above, text)
        return value

    return read


STEPS = whole(1, MOST_STEPS)
GUIDANCE = real(0, MOST_GUIDANCE)
GUIDANCE_HELP = "1 is off (default: 7.5, on mini 3)"
SHARE = real(0, 1)
# torch's generators take 64 bits, DuckDB's BIGINT 63; images take consecutive ones
SEED = whole(0, 2**63 - 1)


def _check_range(value: float, least: float, most: float, above: bool, text: str) -> None:
    wanted = ""
    if value < least or (above and value == least):
        wanted = f"above {least}" if above else f"at least {least}"
    elif value > most:
        wanted = f"at most {most}"
    if wanted:
        raise argparse.ArgumentTypeError(f"must be {wanted}, not {_short(text)}")


def any_text(word: str) -> str:
    """Characters that can be encoded: a terminal's broken bytes reach Python as lone surrogates."""
    try:
        word.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"must be text in UTF-8, not {_short(word)}") from None
    if "\0" in word:
        raise argparse.ArgumentTypeError(f"must be text without NUL, not {_short(word)}")
    return word


def some_text(word: str) -> str:
    """`any_text` that says something."""
    if not any_text(word).strip():
        raise argparse.ArgumentTypeError("is empty; say what it is")
    return word


def file_name(word: str) -> Path:
    """The path of a file that is to be written: no folder, neither one that is there nor one with a slash behind it."""
    if not word or word.endswith(tuple(filter(None, (os.sep, os.altsep)))) or os.path.isdir(word):
        raise argparse.ArgumentTypeError(f"must name a file, not a folder: {_short(word)}")
    return Path(word)


def _short(word: str) -> str:
    return ascii(word if len(word) <= 60 else f"{word[:57]}...") if not word.isprintable() or not word else word[:60]
