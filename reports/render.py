"""A run as one folder of HTML and pictures: `python -m reports.render --run RUN_ID`.

The page opens from the disk, asks the network for nothing, and without
JavaScript lacks only sorting and filtering.
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from reports.data import Interval, Report, latest_run, read_report
from reports.grid import write_grid
from reports.plot import extent, trade_off
from umm_bench.errors import UserError
from umm_bench.seeding import digest

HERE = Path(__file__).parent
THUMBNAIL_SIZE = 384
PIXEL_ART_SIZE = 128  # up to here, smooth enlargement would invent detail
WORST_CASES = 8  # a method
TITLES = {
    "clip_t": "CLIP-T",
    "clip_i": "CLIP-I",
    "dino": "DINO",
    "identity": "Identity",
    "concept": "Concept",
    "background": "Background",
}


@dataclass(frozen=True)
class Picture:
    """`href` is relative to the page, None for a picture that is missing or cannot be read."""

    href: str | None
    pixelated: bool
    source: str


def render_run(store_path: Path, run_id: str, output: Path) -> Path:
    """Writes `output/<run_id>/index.html`, the pictures it shows and a `grid.png`; returns the page's path.

    `UserError` when the database or the run is not there. A missing picture is shown as missing.
    """
    report = read_report(store_path, run_id)
    folder = output / file_name(run_id)
    pictures = Pictures(folder)
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"title_of": title_of, "number": number, "evidence": evidence}
    page = environment.get_template("run.html.j2").render(
        report=report,
        plot=trade_off(report),
        picture=pictures.of,
        track=lambda metric, interval: track(report, metric, interval),
        best={metric: best_mean(report, metric) for metric in report.metrics},
        colour={method: i % 8 for i, method in enumerate(report.methods)},
        worst={
            method: [failure for failure in report.failures if failure.sample.method == method][:WORST_CASES]
            for method in report.methods
        },
        style=asset("report.css"),
        script=asset("report.js"),
    )
    write_grid(report, folder / "grid.png")
    target, partial = folder / "index.html", folder / "index.html.partial"
    partial.write_text(page, encoding="utf-8")
    os.replace(partial, target)
    pictures.prune()
    return target


class Pictures:
    """Copies into the report's folder, at most `THUMBNAIL_SIZE` pixels; copies with their source's time are kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.used: set[Path] = set()
        (folder / "images").mkdir(parents=True, exist_ok=True)

    def of(self, source: Path, name: str) -> Picture:
        href = f"images/{file_name(name)}.png"
        target = self.folder / href
        try:
            made = source.stat().st_mtime_ns
            if not target.exists() or target.stat().st_mtime_ns != made:
                partial = target.with_suffix(".partial")
                with Image.open(source) as image:
                    image.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE), Image.Resampling.LANCZOS)
                    image.convert("RGB").save(partial, "PNG")
                os.utime(partial, ns=(made, made))
                os.replace(partial, target)
            with Image.open(target) as image:
                pixelated = max(image.size) <= PIXEL_ART_SIZE
        except OSError:
            return Picture(None, False, str(source))
        self.used.add(target)
        return Picture(href, pixelated, str(source))

    def prune(self) -> None:
        """Removes what an earlier rendering of the same run showed and this one does not."""
        for path in (self.folder / "images").iterdir():
            if path not in self.used:
                path.unlink()


def file_name(text: str) -> str:
    """`text` where it is a plain name, else what is plain of it and a digest: no two texts share a name."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", text)
    return plain if plain == text else f"{plain}-{digest(text, length=8)}"


def asset(name: str) -> Markup:
    """A file of ours, which goes into the page unescaped."""
    return Markup((HERE / "assets" / name).read_text(encoding="utf-8"))


def title_of(metric: str) -> str:
    return TITLES.get(metric, metric)


def number(value: float | None, digits: int = 3, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.{digits}f}"


def evidence(value: Any) -> str:
    """One value of a failure's evidence as a reader wants it, nested ones in a line."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{title_of(key).replace('_', ' ')} {evidence(part)}" for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(evidence, value))
    return str(value)


def best_mean(report: Report, metric: str) -> float:
    return max(interval.mean for (_, name), interval in report.summaries.items() if name == metric)


def track(report: Report, metric: str, interval: Interval) -> dict[str, float]:
    """Where a mean and its interval lie on the metric's common scale, in percent."""
    reach = [extent(other) for (_, name), other in report.summaries.items() if name == metric]
    low, high = min(start for start, _ in reach), max(end for _, end in reach)
    width = (high - low) or 1.0
    start, end = extent(interval)
    left, right, mean = ((value - low) / width * 100 for value in (start, end, interval.mean))
    return {"left": round(left, 1), "width": round(right - left, 1), "mean": round(mean, 1)}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, 2 after one line on an error of the user's, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m reports.render", description="Render one run as HTML.")
    parser.add_argument("--store", type=Path, default=Path("reports/umm_bench.duckdb"), help="(%(default)s)")
    parser.add_argument("--run", help="run id, as umm_bench.run prints it (default: the latest)")
    parser.add_argument("--output", type=Path, help="folder to write <run>/ into (default: beside the store)")
    parser.add_argument("--grid", type=Path, help="also write the picture of the image grid to this file")
    options = parser.parse_args(arguments)
    try:
        run_id = options.run or latest_run(options.store)
        print(render_run(options.store, run_id, options.output or options.store.parent))
        if options.grid:
            write_grid(read_report(options.store, run_id), options.grid)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
