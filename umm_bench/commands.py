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
