"""A headless Chromium, and what a page asked for and complained about while it was looked at."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reports.screenshots import chromium_path

DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
ABORTED = "net::ERR_ABORTED"
MISSING = "there is no Chromium: `apt-get install chromium`, or `python -m playwright install chromium`"


@contextmanager
def chromium() -> Iterator[Any]:
    """Playwright's own or the system's; skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra `dev`)")
    with playwright.sync_playwright() as started:
        found = chromium_path(started)
        if found is None:
            pytest.skip(MISSING)
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Tab:
    """A page with its complaints: console errors, exceptions, dialogs, failed loads, requests beyond the disk."""

    page: Any
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        on, note = self.page.on, self.complaints.append
        on("console", lambda said: note(said.text) if said.type in ("error", "warning") else None)
        on("pageerror", lambda error: note(str(error)))
        # What a page that is left was still loading is given up, and is no fault; a file that is not there is another.
        on("requestfailed", lambda r: None if r.failure == ABORTED else note(f"failed: {r.url}: {r.failure}"))
        on("request", lambda r: None if r.url.startswith(("file:", "data:", "about:")) else note(f"asked: {r.url}"))
        on("dialog", self._dialog)

    def _dialog(self, dialog: Any) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def open(self, path: Path, fragment: str = "") -> Any:
        self.page.goto("about:blank")
        self.page.goto(path.resolve().as_uri() + fragment)
        return self.page


@contextmanager
def tab(browser: Any, viewport: dict[str, int] = DESK, scheme: str = "light") -> Iterator[Tab]:
    context = browser.new_context(viewport=viewport, color_scheme=scheme)
    context.set_default_timeout(60_000)
    try:
        yield Tab(context.new_page())
    finally:
        context.close()


def until(page: Any, expression: str, seconds: float = 30) -> None:
    """Waits until a JavaScript expression holds. The pages' policy forbids what Playwright waits with."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never: {expression}"
        page.wait_for_timeout(30)


def press(target: Any) -> None:
    """Chooses what a locator finds, by the keyboard: rows that come into view get their height late, and what lies
    below them moves away under a mouse.
    """
    target.press("Enter")
