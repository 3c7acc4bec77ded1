"""Charts: what they are given is where they draw it, in the page's colours, and words of strangers stay words."""

import csv
import io
import re
from urllib.parse import quote, unquote

import pytest

from reports.charts import Chart, trade_off
from reports.data import Interval, extent, read_report
from reports.results import cost_chart, trade_off_chart

NASTY = "<script>alert(1)</script>"


def places(svg: str) -> list[tuple[float, float]]:
    """Where the points lie, in the order of the methods; y grows downwards."""
    found = re.findall(r'aria-roledescription="point" transform="translate\(([-\d.]+),([-\d.]+)\)"', svg)
    return [(float(x), float(y)) for x, y in found]


def test_points_keep_the_order_of_their_means(finished) -> None:
    report = read_report(finished.store, finished.run_id)
    points = places(trade_off_chart(report))
    assert len(points) == len(finished.methods)
    for axis, metric, sign in ((0, "clip_t", 1), (1, "dino", -1)):
        means = [report.summaries[method, metric].mean for method in report.methods]
        drawn = [sign * point[axis] for point in points]
        assert [means.index(mean) for mean in sorted(means)] == [drawn.index(at) for at in sorted(drawn)]
    assert trade_off_chart(report, x="absent") is None


def test_points_lie_in_proportion() -> None:
    def row(method: str, x: float, y: float) -> dict:
        return {"method": method, "x": x, "x_low": x, "x_high": x, "y": y, "y_low": y, "y_high": y}

    (a, b, c) = places(trade_off([row("a", 0, 1), row("b", 1, 3), row("c", 4, 2)], ["a", "b", "c"], "X", "Y"))
    assert (b[0] - a[0]) / (c[0] - a[0]) == pytest.approx(1 / 4, abs=0.01)
    assert (c[1] - a[1]) / (b[1] - a[1]) == pytest.approx(1 / 2, abs=0.01)


def test_names_are_text_and_colours_those_of_the_page() -> None:
    row = {"method": NASTY, "x": 1, "x_low": 0, "x_high": 2, "y": 1, "y_low": 0, "y_high": 2}
    drawn = trade_off([row], [NASTY], NASTY, '"><script>')
    assert "<script" not in drawn and "&lt;script&gt;alert(1)" in drawn
    assert 'fill="var(--m0)"' in drawn


def test_the_points_of_a_curve_are_joined_and_alpha_is_said(finished) -> None:
    def row(method: str, at: float, **more) -> dict:
        return {"method": method, **dict.fromkeys(("x", "x_low", "x_high", "y", "y_low", "y_high"), at), **more}

    steps = [row(f"dreambooth@{n}", n, curve="dreambooth", steps=n) for n in (100, 50, 200)]
    values = [*steps, row("umm", 1, label="umm, alpha 0.7")]
    drawn = trade_off(values, [value["method"] for value in values], "X", "Y")
    (path,) = re.findall(
        r'<path aria-label="[^"]*" role="graphics-symbol" aria-roledescription="line mark" d="([^"]+)"', drawn
    )
    xs = [float(x) for x in re.findall(r"[ML]([-\d.]+),", path)]
    assert len(xs) == 3 and xs == sorted(xs)
    assert "umm, alpha 0.7" in drawn
    assert "line mark" not in trade_off(values[-1:], ["umm"], "X", "Y")


def test_a_chart_has_its_numbers_as_csv(finished) -> None:
    report = read_report(finished.store, finished.run_id)
    chart = trade_off_chart(report)
    kind, _, text = chart.csv.partition(",")
    lines = list(csv.DictReader(io.StringIO(unquote(text))))
    assert kind == "data:text/csv;charset=utf-8"
    assert [line["method"] for line in lines] == list(report.methods)
    for line in lines:
        mean = report.summaries[line["method"], "dino"]
        assert (float(line["DINO"]), float(line["DINO low"])) == (mean.mean, mean.low)
    assert Chart.csv.fget(with_rows({"method": "=1+1", "x": -1.0})).endswith(quote("'=1+1,-1.0\r\n"))


def with_rows(*rows: dict) -> Chart:
    chart = Chart("")
    chart.rows = rows
    return chart


def test_without_costs_or_scores_there_is_no_chart(finished) -> None:
    report = read_report(finished.store, finished.run_id)
    object.__setattr__(report, "costs", {})
    assert cost_chart(report) is None


def test_a_mean_without_bounds_is_its_own_extent() -> None:
    assert extent(Interval(0.5, None, None, 1, 1)) == (0.5, 0.5)
    assert extent(Interval(0.5, 0.4, 0.7, 3, 2)) == (0.4, 0.7)
