"""A run as one folder of HTML and pictures, and an index of all runs: `python -m reports.render --run RUN_ID`.

The pages open from the disk, ask the network for nothing, and without
JavaScript lack only sorting and filtering.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from reports.charts import COLOURS, against_cost, dots, label_bars, over_rarity, trade_off
from reports.claims import FEWEST_CASES, read_claims
from reports.data import Reader, Report, extent, in_order, latest_run, open_store, read_report
from reports.gallery import write_gallery
from reports.grid import spread, write_grid
from reports.page import write_page
from reports.pictures import Pictures
from reports.rare import AXES, FOCUS_SHOWN, Rare, place, read_rare
from reports.runs import write_index
from reports.several import LABELS, MEANINGS
from reports.words import file_name, title_of
from umm_bench.errors import UserError

WORST_CASES = 8  # a method
ROWS_SHOWN = 24  # of the grid; the gallery has all


def render_run(store_path: Path, run_id: str, output: Path) -> Path:
    """Writes the pages of a run into `output/<run_id>/`, the pictures they show and a `grid.png`, and beside them the
    index of all runs; returns the path of the run's first page.

    `UserError` when the database or the run is not there. A missing picture is shown as missing.
    """
    with open_store(store_path) as connection:
        reader = Reader(connection, store_path.parent, run_id)
        report = reader.report()
        rare = read_rare(reader, report.samples)
        folder = output / file_name(run_id)
        pictures = Pictures(folder)
        files = write_gallery(reader, report, pictures)
    rows = report.grid()
    shared: dict[str, Any] = {
        "run": report.run,
        "report": report,
        "picture": pictures.of,
        "colour": {method: i % COLOURS for i, method in enumerate(report.methods)},
    }
    write_page(
        "run.html.j2",
        folder / "index.html",
        plot=trade_off_chart(report),
        track=lambda metric, method: track(report, metric, method),
        costs=cost_chart(report),
        fewest=FEWEST_CASES,
        best={metric: best_mean(report, metric) for metric in report.metrics},
        leaders={metric: leaders(report, metric) for metric in report.metrics},
        rows={key: rows[key] for key in spread(list(rows), ROWS_SHOWN)},
        all_rows=len(rows),
        worst={
            method: [failure for failure in report.failures if failure.sample.method == method][:WORST_CASES]
            for method in report.methods
        },
        **shared,
    )
    write_page("several.html.j2", folder / "several.html", **several_page(report), **shared)
    write_page("rare.html.j2", folder / "rare.html", **rare_page(report, rare), **shared)
    write_page(
        "claims.html.j2", folder / "claims.html", claims=read_claims(report, rare), fewest=FEWEST_CASES, **shared
    )
    write_page("gallery.html.j2", folder / "gallery.html", ("gallery.css", "gallery.js"), files, **shared)
    write_grid(report, folder / "grid.png")
    pictures.prune()
    write_index(store_path, output)
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


def rare_page(report: Report, rare: Rare) -> dict[str, Any]:
    """What the page on rare subjects is made of."""
    charts, crossed = {}, {}
    axes = {axis: words for axis, words in AXES.items() if any(each.on(axis) is not None for each in rare.subjects)}
    for metric in rare.metrics:
        means = rare.means(metric)
        points = [
            {"axis": axis, "method": method, "x": place(axis, value), "score": by_subject[each.subject]}
            for method, by_subject in means.items()
            for each in rare.subjects
            for axis in axes
            if (value := each.on(axis)) is not None and each.subject in by_subject
        ]
        lines = [
            {"axis": f.axis, "method": f.method, "x": x, "score": f.intercept + f.slope * x, "low": low, "high": high}
            for f in rare.fits
            if f.metric == metric
            for x, low, high in f.band
        ]
        if points:
            charts[metric] = over_rarity(
                points, lines, report.methods, title_of(metric), axes, (0, 1) if metric == "identity" else ()
            )
        crossed[metric] = {method: rare.crossed(means[method]) for method in in_order(set(means), report.methods)}
    return {
        "rare": rare,
        "fits": sorted(rare.fits, key=lambda fit: (fit.metric not in rare.metrics, fit.metric, fit.axis)),
        "charts": charts,
        "crossed": crossed,
        "extremes": {metric: rare.extremes(metric) for metric in rare.metrics[:1]},
        "axes": AXES,
        "focus": rare.focus[:FOCUS_SHOWN],
    }


def best_mean(report: Report, metric: str) -> float:
    best = min if metric in report.lower_is_better else max
    return best(interval.mean for (_, name), interval in report.summaries.items() if name == metric)


def leaders(report: Report, metric: str) -> list[str]:
    """The methods with the best mean, rounded as it is shown; none where all are alike."""
    best = round(best_mean(report, metric), 3)
    means = {name: round(interval.mean, 3) for (name, of), interval in report.summaries.items() if of == metric}
    found = [method for method in report.methods if means.get(method) == best]
    return found if len(found) < len(means) or len(means) == 1 else []


def track(report: Report, metric: str, method: str) -> dict[str, float | None]:
    """Where a mean, its interval, its floor and its ceiling lie on the metric's common scale, in percent."""
    reach = [value for (_, name), other in report.summaries.items() if name == metric for value in extent(other)]
    for (_, name), scale in report.scales.items():
        reach += [value for value in (scale.floor, scale.ceiling) if name == metric and value is not None]
    low, high = min(reach), max(reach)
    width = (high - low) or 1.0

    def place(value: float | None) -> float | None:
        return None if value is None else round((value - low) / width * 100, 1)

    interval, scale = report.summaries[method, metric], report.scales[method, metric]
    start, end = extent(interval)
    return {
        "left": place(start),
        "width": round((end - start) / width * 100, 1),
        "mean": place(interval.mean),
        "floor": place(scale.floor),
        "ceiling": place(scale.ceiling),
    }


def trade_off_chart(report: Report, x: str = "clip_t", y: str = "dino") -> Markup | None:
    """Prompt fidelity against subject fidelity; None when no method has both scores."""
    values = []
    for method in report.methods:
        of_x, of_y = (report.summaries.get((method, metric)) for metric in (x, y))
        if of_x is not None and of_y is not None:
            (x_low, x_high), (y_low, y_high) = extent(of_x), extent(of_y)
            low = {"x": of_x.mean, "x_low": x_low, "x_high": x_high}
            values.append({"method": method, **low, "y": of_y.mean, "y_low": y_low, "y_high": y_high})
    return trade_off(values, report.methods, title_of(x), title_of(y)) if values else None


def cost_chart(report: Report) -> Markup | None:
    """Quality over what it costs, of the first metric of fidelity; None where no method has both."""
    metric = next((name for name in ("dino", "identity", *report.metrics) if name in report.metrics), None)
    values = []
    for method in report.methods:
        interval, cost = report.summaries.get((method, metric or "")), report.costs.get(method)
        if interval is not None and cost is not None:
            low, high = extent(interval)
            seconds = (("seconds an image", cost.seconds_per_image), ("seconds of setup", cost.setup_seconds))
            values += [
                {"method": method, "cost": name, "seconds": value, "mean": interval.mean, "low": low, "high": high}
                for name, value in seconds
                if value is not None
            ]
    if not values or metric is None:
        return None
    scales = [scale for (_, name), scale in report.scales.items() if name == metric]
    lines = {
        "plain SD": next((scale.floor for scale in scales if scale.floor is not None), None),
        "real images": next((scale.ceiling for scale in scales if scale.ceiling is not None), None),
    }
    known = {name: value for name, value in lines.items() if value is not None}
    return against_cost(values, report.methods, title_of(metric), known)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, 2 after one line on an error of the user's, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m reports.render", description="Render one run as HTML.")
    parser.add_argument("--store", type=Path, default=Path("reports/umm_bench.duckdb"), help="(%(default)s)")
    parser.add_argument("--run", default="latest", help='run id, as umm_bench.run prints it, or "%(default)s"')
    parser.add_argument(
        "--out", "--output", type=Path, dest="output", help="folder to write <run>/ into (default: beside the store)"
    )
    parser.add_argument("--grid", type=Path, help="also write the picture of the image grid to this file")
    options = parser.parse_args(arguments)
    try:
        run_id = latest_run(options.store) if options.run == "latest" else options.run
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
