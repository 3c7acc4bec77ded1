"""Pictures of a run's pages for the README: `python -m reports.screenshots --run RUN --out docs`.

`report.png` is the first page, `several.png` the one on several subjects, as Chromium shows them (extra `dev`).
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from atomic import whole_file
from reports.data import latest_run, read_report
from reports.render import render_run
from umm_bench.cli.arguments import Parser
from umm_bench.cli.commands import run_command
from umm_bench.errors import UserError

VIEWPORT = {"width": 1280, "height": 860}
PAGES = {"report.png": "index.html", "several.png": "several.html"}
MOST_BYTES = 250_000
COLOURS = (256, 128, 64, 32)
"""Of the palette, until the file is small enough."""


def take_screenshots(store: Path, run_id: str, output: Path) -> list[Path]:
    """The files, written whole. UserError without Chromium, and for a run that drew no several subjects."""
    if not read_report(store, run_id).several.labelled:
        raise UserError(f"run '{run_id}' drew no several subjects to show; `python -m umm_bench.run --pairs 4` does")
    output.mkdir(parents=True, exist_ok=True)
    made = []
    with tempfile.TemporaryDirectory() as folder, started() as browser:
        pages = render_run(store, run_id, Path(folder)).parent
        shown = browser.new_page(viewport=VIEWPORT, color_scheme="light")
        for name, page in PAGES.items():
            shown.goto((pages / page).resolve().as_uri())
            made.append(output / name)
            with whole_file(made[-1]) as path:
                path.write_bytes(_small(shown.screenshot()))
    return made


@contextmanager
def started() -> Iterator[Any]:
    """A headless Chromium. UserError where there is none, or no Playwright to drive it."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise UserError("screenshots need Playwright: pip install playwright") from error
    with sync_playwright() as playwright:
        found = chromium_path(playwright)
        if found is None:
            raise UserError("there is no Chromium: apt-get install chromium, or python -m playwright install chromium")
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def chromium_path(playwright: Any) -> str | None:
    """Playwright's own or the system's."""
    own = Path(playwright.chromium.executable_path)
    return str(own) if own.is_file() else shutil.which("chromium") or shutil.which("google-chrome")


def _small(screenshot: bytes) -> bytes:
    """A PNG with as many colours as fit into MOST_BYTES; with the fewest where none does."""
    picture = Image.open(BytesIO(screenshot)).convert("RGB")
    for colours in COLOURS:
        content = BytesIO()
        picture.quantize(colours, dither=Image.Dither.NONE).save(content, "PNG", optimize=True)
        if content.tell() <= MOST_BYTES:
            break
    return content.getvalue()


def _parser() -> Parser:
    parser = Parser(prog="python -m reports.screenshots", description="Pictures of a run's pages, for the README.")
    parser.add_argument("--store", type=Path, default=Path("reports/umm_bench.duckdb"), help="(%(default)s)")
    parser.add_argument("--run", default="latest", help='run id, as umm_bench.run prints it, or "%(default)s"')
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of the pictures (default: %(default)s)")
    return parser


def _command(options: Namespace) -> None:
    run_id = latest_run(options.store) if options.run == "latest" else options.run
    for path in take_screenshots(options.store, run_id, options.out):
        print(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, 2 after one line on an error of the user's, 130 after Ctrl-C."""
    return run_command(lambda: _command(_parser().parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
