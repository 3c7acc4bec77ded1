"""Charts as SVG inside the page: drawn by Vega-Lite, in the page's own colours, so that they follow light and dark.

Every chart stands beside its table; words and marks, not colour alone, tell things apart.
"""

from collections.abc import Mapping, Sequence
from typing import Any

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
    },
    "legend": {"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "symbolType": "square"},
    "header": {"labelColor": INK, "titleColor": INK, "labelFontSize": 12},
    "title": {"color": INK, "fontSize": 13},
    "text": {"color": INK},
}


def svg(chart: Any, says: str) -> Markup:
    """The chart as an SVG element; `says` is what it shows, for those who do not see it."""
    spec = {**chart.to_dict(), "config": THEME}
    drawn = vl_convert.vegalite_to_svg(spec)
    opening = f'<svg role="img" aria-label="{escape(says)}" '
    return Markup(drawn.replace("<svg ", opening, 1))


def rows(values: Sequence[Mapping[str, Any]]) -> Any:
    return alt.Data(values=[dict(row) for row in values])


def method_colour(methods: Sequence[str]) -> Any:
    """Each method in its colour, the same on every page of a run."""
    colours = [f"var(--m{n % COLOURS})" for n in range(len(methods))]
    return alt.Scale(domain=list(methods), range=colours)


def label_bars(shares: Sequence[Mapping[str, Any]], methods: Sequence[str], labels: Sequence[str]) -> Markup:
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
    return svg(chart, "For each method, the share of subjects with each label")


def dots(values: Sequence[Mapping[str, Any]], methods: Sequence[str], axis: str, says: str) -> Markup:
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
    return svg(lines_of + base.mark_point(filled=True, size=55, opacity=1).encode(x="mean:Q"), says)
