"""How the commands of this package end: one line for a user's mistake, a traceback for a bug."""

import sys
from collections.abc import Callable

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


def quiet_libraries() -> None:
    """Their progress bars and advice would tear a command's own output apart; their errors are raised anyway."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    # Only now: importing diffusers already makes transformers give advice.
    import diffusers

    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
