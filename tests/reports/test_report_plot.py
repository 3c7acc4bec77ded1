import pytest

from reports.data import Interval, read_report
from reports.plot import Axis, trade_off


def test_points_keep_the_order_of_their_means(finished) -> None:
    report = read_report(finished.store, finished.run_id)
    plot = trade_off(report)
    assert plot is not None and [point.method for point in plot.points] == list(finished.methods)
    by_mean = sorted(finished.methods, key=lambda method: report.summaries[method, "dino"].mean)
    by_height = sorted(plot.points, key=lambda point: -point.y)  # SVG's y grows downwards
    assert [point.method for point in by_height] == by_mean
    for point in plot.points:
        assert plot.left < point.x < plot.right and plot.top < point.y < plot.bottom
        assert point.x_range[0] < point.x < point.x_range[1]
    assert trade_off(report, x_metric="absent") is None


@pytest.mark.parametrize(("low", "high"), [(0.61, 0.64), (-2.0, 31.0), (0.5, 0.5)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    axis = Axis([Interval(low, None, None, 1, 1), Interval(high, None, None, 1, 1)], 0, 100)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 8
    for tick in ticks:
        assert 0 <= tick.at <= 100
        assert axis.place(float(tick.label)) == pytest.approx(tick.at, abs=0.1)
