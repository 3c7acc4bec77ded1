"""How a command ends, whatever it is given."""

import contextlib
import io
from collections import Counter
from collections.abc import Callable


def ends_well(outcomes: Counter[str], command: Callable[[list[str]], int], words: list[str]) -> None:
    """Runs a command and counts how it ends. Anything but 0, or 2 with one line at the end, fails."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = command(words)
        except SystemExit as end:  # --help
            code = end.code
    errors = [line for line in err.getvalue().splitlines() if line.startswith("error: ")]
    assert code in (0, 2), (code, words, err.getvalue())
    assert len(errors) == (code == 2) and "Traceback" not in err.getvalue(), (words, err.getvalue())
    outcomes["results" if code == 0 else " ".join(errors[0].split()[1:4])] += 1
