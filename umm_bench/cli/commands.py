"""How the commands of this package end: one line for a user's mistake, a traceback for a bug."""

import errno
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper

from umm_bench.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The disk, what one is allowed of it, or what a file may be."""


def run_command(command: Callable[[], int | None], interrupted: str = "interrupted") -> int:
    """The exit code of `command()`: what it gives, 0 for None; after one line, 2 for a UserError and where memory or
    disk do not suffice, 130 after Ctrl-C (`interrupted`).
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may be what the terminal cannot show
    try:
        return command() or 0
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in FULL:
            raise
        where = f" ({error.filename})" if error.filename else ""
        print(f"error: no room left on the disk{where}; free some, and give the same command again", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        print("error: out of memory; ask for less at a time, or for smaller models", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130


def is_out_of_memory(error: Exception) -> bool:
    """torch's own kind on a GPU is a RuntimeError; on a CPU only its words tell."""
    words = ("can't allocate memory", "out of memory", "not enough memory")
    return isinstance(error, MemoryError) or any(part in str(error) for part in words)


@contextmanager
def signals_noted(alone: bool = True) -> Iterator[list[int]]:
    """Ctrl-C and a polite kill, for a training's loop to look at between two steps.

    An exception amid optimizer.step() would leave half of a step in the checkpoint. A second signal is an exception.
    Of several processes that a launcher started (not `alone`) each gets Ctrl-C from the terminal and from the launcher,
    so a second means no more than the first; a kill ends it at once, since another has failed that it may wait for.
    """
    noted: list[int] = []

    def note(number: int, frame: object) -> None:
        if noted and alone:
            raise KeyboardInterrupt
        noted.append(number)

    numbers = (signal.SIGINT, signal.SIGTERM) if alone else (signal.SIGINT,)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def quiet_libraries() -> None:
    """Their progress bars and advice would tear a command's own output apart; their errors are raised anyway."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    # Only now: importing diffusers already makes transformers give advice.
    import diffusers

    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
