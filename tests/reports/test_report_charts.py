"""Charts: what they are given is where they draw it, in the page's colours, and words of strangers stay words."""

import re

import pytest

from reports.charts import trade_off
from reports.data import Interval, extent, read_report
from reports.render import cost_chart, trade_off_chart

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


def test_without_costs_or_scores_there_is_no_chart(finished) -> None:
    report = read_report(finished.store, finished.run_id)
    object.__setattr__(report, "costs", {})
    assert cost_chart(report) is None


def test_a_mean_without_bounds_is_its_own_extent() -> None:
    assert extent(Interval(0.5, None, None, 1, 1)) == (0.5, 0.5)
    assert extent(Interval(0.5, 0.4, 0.7, 3, 2)) == (0.4, 0.7)
