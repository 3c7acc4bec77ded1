"""A run as one folder of HTML and pictures, and an index of all runs: `python -m reports.render --run RUN_ID`.

The pages open from the disk, ask the network for nothing, and without
JavaScript lack only sorting and filtering.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reports.against.compare import compare_page
from reports.against.published import write_published
from reports.bundle import write_single, write_zip
from reports.charts import COLOURS, dots, label_bars, over_rarity
from reports.data import Reader, Report, extent, in_order, latest_run, open_store, read_report
from reports.findings.claims import FEWEST_CASES, read_claims
from reports.findings.rare import AXES, FOCUS_SHOWN, Rare, place, read_rare
from reports.findings.several import LABELS, MEANINGS
from reports.gallery import write_gallery
from reports.grid import write_grid
from reports.judges.people import people_page
from reports.judges.replayed import replayed_page
from reports.judges.trial import trial_page
from reports.page import PAGES, write_page
from reports.pictures import Pictures
from reports.results import results_page
from reports.runs import write_index
from reports.words import file_name, title_of
from umm_bench.cli.arguments import Parser
from umm_bench.cli.commands import run_command

COMPARED = ("compare.html", "Against another run")


def render_run(
    store_path: Path,
    run_id: str,
    output: Path,
    *,
    against: str | None = None,
    as_zip: bool = False,
    as_single_file: bool = False,
) -> Path:
    """Writes the pages of a run into `output/<run_id>/`, the pictures they show and a `grid.png`, and beside them the
    index of all runs; returns the path of the run's first page. With the id of another run, `against`, a page compares
    the two. Asked for, `output` gets `<run_id>.zip`, and all in one file, `<run_id>.html`.

    `UserError` when the database or a run is not there, two runs have nothing in common, or one file
    would be too large. A missing picture is shown as missing.
    """
    with open_store(store_path) as connection:
        reader = Reader(connection, store_path.parent, run_id)
        report = reader.report()
        rare = read_rare(reader, report.samples)
        other = Reader(connection, store_path.parent, against).report() if against else None
        compared = compare_page(other, report) if other else None
        folder = output / file_name(run_id)
        pictures = Pictures(folder)
        files = write_gallery(reader, report, pictures)
        judges = {
            "trial": trial_page(connection),
            "replayed": replayed_page(reader, report),
            "people": people_page(reader, report),
        }
    shared: dict[str, Any] = {
        "run": report.run,
        "pages": (*PAGES, COMPARED) if compared else PAGES,
        "report": report,
        "store": store_path,
        "folder": store_path.parent,
        "picture": pictures.of,
        "colour": {method: i % COLOURS for i, method in enumerate(report.methods)},
    }
    write_page("run.html.j2", folder / "index.html", **results_page(report), **shared)
    write_page("several.html.j2", folder / "several.html", **several_page(report), **shared)
    write_page("rare.html.j2", folder / "rare.html", **rare_page(report, rare), **shared)
    write_page(
        "claims.html.j2", folder / "claims.html", claims=read_claims(report, rare), fewest=FEWEST_CASES, **shared
    )
    for name, content in judges.items():
        write_page(f"{name}.html.j2", folder / f"{name}.html", **content, **shared)
    if compared:
        write_page("compare.html.j2", folder / COMPARED[0], fewest=FEWEST_CASES, **compared, **shared)
    else:  # of an earlier rendering
        (folder / COMPARED[0]).unlink(missing_ok=True)
    write_page("gallery.html.j2", folder / "gallery.html", ("gallery.css", "gallery.js"), files, **shared)
    write_grid(report, folder / "grid.png")
    pictures.prune()
    write_index(store_path, output)
    write_published(output)
    if as_zip:
        write_zip(folder)
    if as_single_file:
        write_single(folder, report.run, shared["pages"])
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


def _parser() -> Parser:
    parser = Parser(prog="python -m reports.render", description="Render one run as HTML.")
    parser.add_argument("--store", type=Path, default=Path("reports/umm_bench.duckdb"), help="(%(default)s)")
    parser.add_argument("--run", default="latest", help='run id, as umm_bench.run prints it, or "%(default)s"')
    parser.add_argument(
        "--out", "--output", type=Path, dest="output", help="folder to write <run>/ into (default: beside the store)"
    )
    parser.add_argument("--grid", type=Path, help="also write the picture of the image grid to this file")
    parser.add_argument("--compare", metavar="RUN", help="also a page that holds the run against this other one")
    parser.add_argument("--zip", action="store_true", help="also <run>.zip, the run's folder as one file")
    parser.add_argument(
        "--single-file", action="store_true", help="also <run>.html, all pages and pictures in one file"
    )
    return parser


def _command(options: Namespace) -> None:
    run_id = latest_run(options.store) if options.run == "latest" else options.run
    output = options.output or options.store.parent
    extras = {"against": options.compare, "as_zip": options.zip, "as_single_file": options.single_file}
    index = render_run(options.store, run_id, output, **extras)
    print(index)
    for asked, ending in ((options.zip, "zip"), (options.single_file, "html")):
        if asked:
            print(output / f"{index.parent.name}.{ending}")
    if options.grid:
        write_grid(read_report(options.store, run_id), options.grid)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, 2 after one line on an error of the user's, 130 after Ctrl-C."""
    return run_command(lambda: _command(_parser().parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
