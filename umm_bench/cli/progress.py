"""Progress of a long loop: a bar in a terminal, a plain line now and then elsewhere."""

import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Task as RichTask

_SECONDS_BETWEEN_LINES = 10.0


class _Rate(TextColumn):
    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: RichTask):
        from rich.text import Text

        return Text(f"{task.speed:.2f}/s" if task.speed else "", style="progress.data.speed")


class Tracker:
    """`with Tracker(console, "images", 24) as tracker: tracker.update(done=3, label="umm, fox")`.

    `before` of the total were ready before this run, which took no time of it.
    """

    def __init__(self, console: Console, title: str, total: int, before: int = 0) -> None:
        self.console, self.title, self.total, self.before = console, title, total, before
        self._started = self._last_line = time.monotonic()
        self._done = 0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=total, completed=before)

    def __enter__(self) -> "Tracker":
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def update(self, done: int, label: str = "") -> None:
        """`done` of the total are ready; `label` says what is being worked on."""
        self._bar.update(self._task, completed=done, description=f"{self.title}: {label}" if label else self.title)
        now = time.monotonic()
        finished = done == self.total and done != self._done
        if not self.console.is_terminal and (finished or now - self._last_line > _SECONDS_BETWEEN_LINES):
            self._last_line = now
            rate = (done - self.before) / (now - self._started) if now > self._started else 0.0
            left = f", {(self.total - done) / rate:.0f} s left" if rate and done < self.total else ""
            self.console.print(f"{self.title} {done}/{self.total}, {rate:.2f}/s{left} {label}", highlight=False)
        self._done = done
