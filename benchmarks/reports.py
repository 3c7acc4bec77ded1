"""How long the report of a large run takes to write and to open, and how much a browser loads to show its first page.

    python -m benchmarks.reports [--samples 10000] [--side 512] [--json]

The run is made up: pictures of --side pixels with the grain of photographs, four methods, 50 subjects, five metrics,
a fifth of them of two subjects. Rendering starts from the store alone, with no picture copied yet. A page is open
when its first row of pictures is drawn, in a headless Chromium, from the disk; the median of five, of the slowest page.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.synthetic_run import make_run
from figures import Figure, emit
from reports.render import render_run
from umm_bench.cli.arguments import Parser, whole
from umm_bench.cli.commands import run_command
from umm_bench.errors import UserError

PAGES = ("index.html", "gallery.html", "several.html", "rare.html", "claims.html")
OPENINGS = 5
DRAWN = "[...document.images].filter((each) => each.complete && each.naturalWidth).length >= {}"


def measure(samples: int, side: int) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="umm-reports-") as name:
        folder = Path(name)
        run = make_run(folder, samples, side)
        began, worked = time.perf_counter(), time.process_time()
        index = render_run(folder / "umm_bench.duckdb", run, folder)
        seconds, worked = time.perf_counter() - began, time.process_time() - worked
        copied = sum(1 for _ in (index.parent / "images").iterdir())
        note = f"{samples:,} samples of {side} px; {copied:,} pictures copied; {worked:.0f} s of processor"
        yield Figure("reports.render_seconds_10k", seconds, "s", False, 60 if samples == 10_000 else None, note)
        sizes = {page: loaded_bytes(index.with_name(page)) / 1e6 for page in PAGES}
        note = ", ".join(f"{page} {size:.2f}" for page, size in sizes.items()) + "; with the scripts that each loads"
        yield Figure("reports.index_mb", max(sizes.values()), "MB", False, 3, note)
        opened = {page: open_seconds(index.with_name(page)) for page in PAGES}
        note = ", ".join(f"{page} {median:.2f}" for page, median in opened.items())
        yield Figure("reports.open_seconds_10k", max(opened.values()), "s", False, 2, note)


def loaded_bytes(page: Path) -> int:
    """Of a page and of the scripts beside it that it loads at once; pictures are loaded as they come into sight."""
    text = page.read_text(encoding="utf-8")
    beside = re.findall(r'<script src="([^"]+)"', text)
    return page.stat().st_size + sum((page.parent / name).stat().st_size for name in beside)


def open_seconds(page: Path) -> float:
    """The median time to the first pictures. UserError without playwright or Chromium."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        raise UserError("playwright is not installed: pip install 'umm-bench[dev]'") from error
    pictures = 4 if page.name == "gallery.html" or "<img" in page.read_text(encoding="utf-8") else 0
    with sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        found = str(own) if own.is_file() else shutil.which("chromium")
        if found is None:
            raise UserError("there is no Chromium: `apt-get install chromium`")
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        times = []
        for _ in range(OPENINGS):
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            tab = context.new_page()
            began = time.perf_counter()
            try:
                tab.goto(page.resolve().as_uri(), wait_until="domcontentloaded")
            except Error as error:
                raise UserError(f"cannot open {page}: {str(error).splitlines()[0]}") from error
            if pictures:
                tab.evaluate("document.querySelector('img')?.scrollIntoView()")
            while not tab.evaluate(DRAWN.format(pictures)):
                tab.wait_for_timeout(5)
            times.append(time.perf_counter() - began)
            context.close()
        browser.close()
    return statistics.median(times)


def _parser() -> Parser:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = Parser(
        prog="python -m benchmarks.reports",
        description=summary,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--samples", type=whole(40, 1_000_000), default=10_000, help="(%(default)s)")
    parser.add_argument("--side", type=whole(16, 4096), default=512, help="pixels of a picture's side (%(default)s)")
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    return parser


def _command(options: argparse.Namespace) -> None:
    emit(measure(options.samples, options.side), options.json)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(lambda: _command(_parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
