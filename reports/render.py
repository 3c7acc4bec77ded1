"""A run as one folder of HTML and pictures: `python -m reports.render --run RUN_ID`.

The page opens from the disk, asks the network for nothing, and without
JavaScript lacks only sorting and filtering.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reports.charts import COLOURS, dots, label_bars
from reports.data import Interval, Report, in_order, latest_run, read_report
from reports.grid import write_grid
from reports.page import write_page
from reports.pictures import Pictures
from reports.plot import extent, trade_off
from reports.several import LABELS, MEANINGS
from reports.words import file_name
from umm_bench.errors import UserError

WORST_CASES = 8  # a method


def render_run(store_path: Path, run_id: str, output: Path) -> Path:
    """Writes the pages of a run into `output/<run_id>/`, the pictures they show and a `grid.png`; returns the first
    page's path.

    `UserError` when the database or the run is not there. A missing picture is shown as missing.
    """
    report = read_report(store_path, run_id)
    folder = output / file_name(run_id)
    pictures = Pictures(folder)
    shared = {
        "run": report.run,
        "report": report,
        "picture": pictures.of,
        "colour": {method: i % COLOURS for i, method in enumerate(report.methods)},
    }
    write_page(
        "run.html.j2",
        folder / "index.html",
        plot=trade_off(report),
        track=lambda metric, interval: track(report, metric, interval),
        best={metric: best_mean(report, metric) for metric in report.metrics},
        worst={
            method: [failure for failure in report.failures if failure.sample.method == method][:WORST_CASES]
            for method in report.methods
        },
        **shared,
    )
    write_page("several.html.j2", folder / "several.html", **several_page(report), **shared)
    write_grid(report, folder / "grid.png")
    pictures.prune()
    return folder / "index.html"


def several_page(report: Report) -> dict[str, Any]:
    """What the page on several subjects is made of."""
    several = report.several
    rates = several.rates()
    methods = in_order(set(rates), report.methods)
    shares = [
        {"method": method, "label": label, "share": rates[method][label].mean} for method in methods for label in LABELS
    ]
    traits = several.traits()
    common = [
        {"what": f"{trait.value}", "method": method, "mean": rate.mean, "low": extent(rate)[0], "high": extent(rate)[1]}
        for trait in traits
        for method, rate in trait.failing.items()
    ]
    return {
        "several": several,
        "rates": rates,
        "methods": methods,
        "bars": label_bars(shares, methods, LABELS) if shares else None,
        "traits": traits,
        "dots": dots(common, methods, "share that is not right", "Share of failing subjects by trait")
        if common
        else None,
        "labels": LABELS,
        "meanings": MEANINGS,
        "examples": {label: several.examples(label) for label in LABELS},
        "confusion": several.confusion(),
        "agreement": several.agreement(),
    }


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
