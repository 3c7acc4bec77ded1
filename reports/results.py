"""The first page of a run: who leads by what, within which bounds, at what cost, and a part of the pictures."""

import re
from typing import Any

from reports.charts import Chart, against_cost, trade_off
from reports.data import Report, extent
from reports.findings.claims import FEWEST_CASES
from reports.grid import spread
from reports.words import title_of

WORST_CASES = 8  # a method
ROWS_SHOWN = 24  # of the grid; the gallery has all
CURVE = re.compile(r"(?P<method>.+)@(?P<steps>\d+)")  # a point of a curve of one training


def results_page(report: Report) -> dict[str, Any]:
    """What the page is made of."""
    rows = report.grid()
    return {
        "plot": trade_off_chart(report),
        "track": lambda metric, method: track(report, metric, method),
        "costs": cost_chart(report),
        "fewest": FEWEST_CASES,
        "best": {metric: best_mean(report, metric) for metric in report.metrics},
        "leaders": {metric: leaders(report, metric) for metric in report.metrics},
        "rows": {key: rows[key] for key in spread(list(rows), ROWS_SHOWN)},
        "all_rows": len(rows),
        "worst": {
            method: [failure for failure in report.failures if failure.sample.method == method][:WORST_CASES]
            for method in report.methods
        },
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


def trade_off_chart(report: Report, x: str = "clip_t", y: str = "dino") -> Chart | None:
    """Prompt fidelity against subject fidelity, with alpha beside UMM and a line along each training's steps; None when
    no method has both scores.
    """
    values = []
    for method in report.methods:
        of_x, of_y = (report.summaries.get((method, metric)) for metric in (x, y))
        if of_x is not None and of_y is not None:
            (x_low, x_high), (y_low, y_high) = extent(of_x), extent(of_y)
            low = {"x": of_x.mean, "x_low": x_low, "x_high": x_high}
            point = CURVE.fullmatch(method)
            curve = {"curve": point["method"], "steps": int(point["steps"])} if point else {}
            alpha = report.arguments.get(method, {}).get("alpha")
            label = method if alpha is None else f"{method}, alpha {alpha:g}"
            high = {"y": of_y.mean, "y_low": y_low, "y_high": y_high}
            values.append({"method": method, **low, **high, "label": label, **curve})
    return trade_off(values, report.methods, title_of(x), title_of(y)) if values else None


def cost_chart(report: Report) -> Chart | None:
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
