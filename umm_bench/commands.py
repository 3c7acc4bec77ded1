"""How the commands of this package end: one line for a user's mistake, a traceback for a bug."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from umm_bench.errors import UserError


def run_command(command: Callable[[], None], interrupted: str = "interrupted") -> int:
    """The exit code of `command()`: 0, 2 after a UserError (shown as one line), 130 after Ctrl-C (`interrupted`)."""
    try:
        command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
    return 0


@contextmanager
def signals_noted(second_ends: bool = True) -> Iterator[list[int]]:
    """Signals that ask a training to end, for its loop to look at between two steps.

    An exception amid optimizer.step() would leave half of a step in the checkpoint. A second signal is an exception,
    unless not `second_ends`: started by a launcher, a process gets one from the terminal and another from the launcher.
    """
    noted: list[int] = []

    def note(number: int, frame: object) -> None:
        if noted and second_ends:
            raise KeyboardInterrupt
        noted.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
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
