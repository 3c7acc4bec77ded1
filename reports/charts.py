"""Charts as SVG inside the page: drawn by Vega-Lite, in the page's own colours, so that they follow light and dark.

Every chart stands beside its table; words and marks, not colour alone, tell things apart.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import altair as alt
import vl_convert
from markupsafe import Markup, escape

INK, SOFT, LINE = "var(--ink)", "var(--soft)", "var(--line)"
FONT = "system-ui, sans-serif"
SHARES = {"format": "%", "tickCount": 5}
COLOURS = 8  # of methods, in report.css
THEME: dict[str, Any] = {
    "background": "transparent",
    "font": FONT,
    "padding": {"left": 28, "right": 12, "top": 5, "bottom": 5},  # the page's font may be wider than the one measured
    "view": {"stroke": "transparent"},
    "axis": {
        "labelColor": SOFT,
        "titleColor": INK,
        "gridColor": LINE,
        "domainColor": LINE,
        "tickColor": LINE,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelLimit": 220,
        "labelOverlap": "greedy",
    },
    "legend": {
        "labelColor": INK,
        "titleColor": INK,
        "labelFontSize": 12,
        "symbolType": "square",
        "symbolOpacity": 1,
        "columnPadding": 24,
    },
    "header": {"labelColor": INK, "titleColor": INK, "labelFontSize": 12},
    "title": {"color": INK, "fontSize": 13},
    "text": {"color": INK},
}


class Chart(Markup):
    """An SVG element, and the rows that it is drawn from."""

    rows: Sequence[Mapping[str, Any]] = ()

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row))

    @property
    def csv(self) -> str:
        """The rows as the address of a file. Names that a spreadsheet would run are quoted."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns)
        writer.writeheader()
        writer.writerows({name: _harmless(value) for name, value in row.items()} for row in self.rows)
        return f"data:text/csv;charset=utf-8,{quote(text.getvalue())}"


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t")) else value


def svg(chart: Any, says: str, numbers: Sequence[Mapping[str, Any]]) -> Chart:
    """The chart as an SVG element; `says` is what it shows, for those who do not see it, `numbers` are its rows."""
    spec = {**chart.to_dict(), "config": THEME}
    drawn = vl_convert.vegalite_to_svg(spec)
    opening = f'<svg role="img" aria-label="{escape(says)}" '
    made = Chart(drawn.replace("<svg ", opening, 1))
    made.rows = numbers
    return made


def rows(values: Sequence[Mapping[str, Any]]) -> Any:
    return alt.Data(values=[dict(row) for row in values])


def method_colour(methods: Sequence[str]) -> Any:
    """Each method in its colour, the same on every page of a run."""
    colours = [f"var(--m{n % COLOURS})" for n in range(len(methods))]
    return alt.Scale(domain=list(methods), range=colours)


def label_bars(shares: Sequence[Mapping[str, Any]], methods: Sequence[str], labels: Sequence[str]) -> Chart:
    """A stacked bar a method: rows of method, label and share."""
    scale = alt.Scale(domain=list(labels), range=[f"var(--label-{label})" for label in labels])
    order = {label: n for n, label in enumerate(labels)}
    chart = (
        alt.Chart(rows([{**row, "order": order[row["label"]]} for row in shares]), width=460, height={"step": 34})
        .mark_bar(stroke="var(--panel)", strokeWidth=1.5)
        .encode(
            y=alt.Y("method:N", sort=list(methods), title=None),
            x=alt.X("share:Q", title="share of the subjects asked for", axis=alt.Axis(format="%", tickCount=5)).scale(
                domain=[0, 1]
            ),
            color=alt.Color("label:N", scale=scale, title=None, legend=alt.Legend(orient="top")),
            order=alt.Order("order:Q"),
        )
    )
    return svg(chart, "For each method, the share of subjects with each label", shares)


def dots(values: Sequence[Mapping[str, Any]], methods: Sequence[str], axis: str, says: str) -> Chart:
    """Means with intervals: rows of what, method, mean, low and high, one line a `what`, methods side by side."""
    lines = list(dict.fromkeys(row["what"] for row in values))
    base = alt.Chart(rows(values), width=400, height={"step": 15}).encode(
        y=alt.Y("what:N", sort=lines, title=None),
        yOffset=alt.YOffset("method:N", sort=list(methods)),
        color=alt.Color("method:N", scale=method_colour(methods), title=None, legend=alt.Legend(orient="top")),
    )
    lines_of = base.mark_rule(strokeWidth=2, opacity=0.6).encode(
        x=alt.X("low:Q", title=axis, scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%", tickCount=5)),
        x2="high:Q",
    )
    return svg(lines_of + base.mark_point(filled=True, size=55, opacity=1).encode(x="mean:Q"), says, values)


def against_cost(
    values: Sequence[Mapping[str, Any]], methods: Sequence[str], title: str, lines: Mapping[str, float]
) -> Chart:
    """Quality over cost, a panel a kind of cost: rows of method, cost, seconds, mean, low and high; `lines` are levels
    drawn across."""
    kinds = list(dict.fromkeys(row["cost"] for row in values))
    levels = [row[name] for row in values for name in ("low", "high")] + list(lines.values())
    y = alt.Scale(domain=_room(levels), nice=False)
    panels = []
    for kind in kinds:
        chosen = [row for row in values if row["cost"] == kind]
        most = max(1.0, 1.1 * max(row["seconds"] for row in chosen))
        x = alt.Scale(type="symlog", domain=[0, most], nice=False)
        base = alt.Chart(rows(chosen), width=270, height=230).encode(
            x=alt.X("seconds:Q", title=kind, scale=x, axis={"tickCount": 4}),
            color=alt.Color("method:N", scale=method_colour(methods), title=None, legend=None),
        )
        points = base.mark_point(filled=True, size=80, opacity=1).encode(
            y=alt.Y("mean:Q", title=title, scale=y),
            shape=alt.Shape("method:N", scale=alt.Scale(domain=list(methods)), legend=None),
        )
        names = base.mark_text(align="left", dx=8, dy=-8).encode(y="mean:Q", text="method:N", color=alt.value(INK))
        whiskers = base.mark_rule(strokeWidth=1.5, opacity=0.6).encode(
            y=alt.Y("low:Q", title=title, scale=y), y2="high:Q"
        )
        layers = [whiskers, points, names]
        if lines:
            level = alt.Chart(rows([{"name": name, "at": at} for name, at in lines.items()])).encode(
                y=alt.Y("at:Q", scale=y)
            )
            layers += [
                level.mark_rule(strokeDash=[5, 4], color=SOFT),
                level.mark_text(align="left", dy=-6, color=SOFT).encode(text="name:N", x=alt.value(4)),
            ]
        panels.append(alt.layer(*layers))
    return svg(alt.hconcat(*panels), f"{title} over {' and over '.join(kinds)}, one point a method", values)


def trade_off(values: Sequence[Mapping[str, Any]], methods: Sequence[str], x: str, y: str) -> Chart:
    """Two scores against each other, a point a method: rows of method, x, x_low, x_high, y, y_low and y_high, perhaps
    with a label, and a curve and steps: the points of a curve are joined in the order of their steps.
    """
    scales = {
        axis: alt.Scale(domain=_room([row[f"{axis}_{end}"] for row in values for end in ("low", "high")]), nice=False)
        for axis in ("x", "y")
    }
    labelled = [{"label": row["method"], **row} for row in values]
    base = alt.Chart(rows(labelled), width=480, height=320).encode(
        x=alt.X("x:Q", title=x, scale=scales["x"], axis={"tickCount": 5}),
        y=alt.Y("y:Q", title=y, scale=scales["y"], axis={"tickCount": 5}),
        color=alt.Color("method:N", scale=method_colour(methods), legend=None),
    )
    whiskers = base.mark_rule(strokeWidth=1.5, opacity=0.6)
    layers = [
        whiskers.encode(x=alt.X("x_low:Q", title=x, scale=scales["x"]), x2="x_high:Q"),
        whiskers.encode(y=alt.Y("y_low:Q", title=y, scale=scales["y"]), y2="y_high:Q"),
        base.mark_point(filled=True, size=90, opacity=1).encode(
            shape=alt.Shape("method:N", scale=alt.Scale(domain=list(methods)), legend=None)
        ),
        base.mark_text(align="left", dx=9, dy=-9).encode(text="label:N", color=alt.value(INK)),
    ]
    curves = [row for row in values if row.get("curve")]
    if curves:
        path = alt.Chart(rows(curves)).mark_line(strokeWidth=1.5, strokeDash=[2, 3], color=SOFT)
        ends = {"x": alt.X("x:Q", title=x, scale=scales["x"]), "y": alt.Y("y:Q", title=y, scale=scales["y"])}
        layers.insert(0, path.encode(**ends, detail="curve:N", order="steps:Q"))
    named = {"x": x, "x_low": f"{x} low", "x_high": f"{x} high", "y": y, "y_low": f"{y} low", "y_high": f"{y} high"}
    numbers = [{"method": row["method"], **{named[name]: row[name] for name in named}} for row in values]
    return svg(alt.layer(*layers), f"{y} over {x}, one point a method", numbers)


def _room(levels: Sequence[float]) -> list[float]:
    """From the least to the greatest, with some room around them."""
    room = 0.08 * (max(levels) - min(levels)) or 0.05
    return [min(levels) - room, max(levels) + room]


def rank_lines(values: Sequence[Mapping[str, Any]], methods: Sequence[str], rules: Sequence[str], says: str) -> Chart:
    """How ranks move from rule to rule, a line a method: rows of rule, method and rank."""
    most = max(row["rank"] for row in values)
    base = alt.Chart(rows(values), width={"step": 95}, height=max(90, 34 * most)).encode(
        x=alt.X("rule:N", sort=list(rules), title=None, axis={"labelAngle": 0}),
        y=alt.Y(
            "rank:Q",
            title="rank",
            scale=alt.Scale(domain=[most + 0.4, 0.6], nice=False),
            axis={"values": list(range(1, most + 1)), "format": "d"},
        ),
        color=alt.Color("method:N", scale=method_colour(methods), title=None, legend=alt.Legend(orient="top")),
    )
    shape = alt.Shape("method:N", scale=alt.Scale(domain=list(methods)), legend=None)
    return svg(
        base.mark_line(strokeWidth=2) + base.mark_point(filled=True, size=80, opacity=1).encode(shape=shape),
        says,
        values,
    )


def over_rarity(
    points: Sequence[Mapping[str, Any]],
    lines: Sequence[Mapping[str, Any]],
    methods: Sequence[str],
    title: str,
    axes: Mapping[str, str],
    reach: Sequence[float] = (),
) -> Chart:
    """A score over rarity, a panel an axis.

    Args:
        points: rows of axis, method, x, score: a subject's mean.
        lines: rows of axis, method, x, score, low, high: the fit with its band.
        axes: axis -> its title; the one named "count" is drawn in powers of ten.
        reach: scores that are on the scale in any case.
    """
    levels = [row["score"] for row in points] + [row[end] for row in lines for end in ("low", "high")]
    scale = alt.Scale(domain=_room([*levels, *reach]), nice=False)
    panels = []
    for axis, words in axes.items():
        seen = [row for row in points if row["axis"] == axis]
        fitted = [row for row in lines if row["axis"] == axis]
        if not seen:
            continue
        ticks = {"labelExpr": "format(pow(10, datum.value), ',~r')", "tickMinStep": 1}
        x = alt.X("x:Q", title=words, scale=alt.Scale(zero=False), axis=ticks if axis == "count" else {"tickCount": 5})
        colour = alt.Color("method:N", scale=method_colour(methods), title=None, legend=alt.Legend(orient="top"))
        y = alt.Y("score:Q", title=title, scale=scale)
        layers = [
            alt.Chart(rows(fitted), width=290, height=230)
            .mark_area(opacity=0.15)
            .encode(x=x, y=alt.Y("low:Q", title=title, scale=scale), y2="high:Q", color=colour),
            alt.Chart(rows(fitted), width=290, height=230).mark_line(strokeWidth=2).encode(x=x, y=y, color=colour),
            alt.Chart(rows(seen), width=290, height=230)
            .mark_point(filled=True, opacity=0.75, size=42)
            .encode(
                x=x, y=y, color=colour, shape=alt.Shape("method:N", scale=alt.Scale(domain=list(methods)), legend=None)
            ),
        ]
        panels.append(alt.layer(*(layers if fitted else layers[2:])))
    return svg(alt.hconcat(*panels), f"{title} of each subject over how rare it is, with a line a method", points)
