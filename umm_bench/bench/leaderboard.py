"""The tables that a run ends with in the terminal: one for cases of one subject, one for those of two, ..."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from umm_bench.bench.store import Store

TITLES = {
    "clip_t": "CLIP-T",
    "clip_i": "CLIP-I",
    "dino": "DINO",
    "identity": "ident.",
    "concept": "concept",
    "background": "backgr.",
}
"""In the order of their columns; other metrics follow under their own names."""

COUNTS = {1: "One subject", 2: "Two subjects", 3: "Three subjects"}
SHOWN_REASONS = 6

Rows = dict[tuple[str, str], dict[str, Any]]
"""By (method, metric)."""


def show_leaderboard(console: Console, store: Store, run_id: str, methods: Sequence[str]) -> None:
    """Means with 95 % intervals and costs a method, then the paired effects, as the store has them.

    A method that cannot draw so many subjects says so in its row.
    """
    counts = store.rows(
        "select distinct subject_count from (select subject_count, sample_key from samples union all"
        " select subject_count, sample_key from undrawn) join run_samples using (sample_key)"
        " where run_id = ? order by 1",
        [run_id],
    )
    for row in counts:
        _show(console, store, run_id, methods, row["subject_count"])
    console.print("[dim]s/img: median seconds an image; setup: mean seconds of a setup[/dim]", highlight=False)
    _show_failed(console, store, run_id)


def _show(console: Console, store: Store, run_id: str, methods: Sequence[str], count: int) -> None:
    title = COUNTS.get(count, f"{count} subjects")
    summaries = _by_method_and_metric(store, "summaries", run_id, count)
    effects = _by_method_and_metric(store, "comparisons", run_id, count)
    skipped = _skipped(store, run_id, count)
    found = {metric for _, metric in summaries}
    metrics = [name for name in TITLES if name in found] + sorted(found - TITLES.keys())
    costs = _costs(store, run_id, count)
    table = _table(metrics)
    table.add_column("s/img", justify="right")
    table.add_column("setup", justify="right")
    for method in methods:
        if method in skipped:
            table.add_row(f"{method}: {skipped[method]}")
            continue
        scores = [_cell(summaries.get((method, metric)), "mean") for metric in metrics]
        image, setup = costs.get(method, (None, None))
        table.add_row(method, *scores, _seconds(image, 2), _seconds(setup, 1))
    console.print(f"\n[bold]{title}: means with 95 % intervals, clustered by case[/bold]", highlight=False)
    console.print(table)
    if effects:
        some = next(iter(effects.values()))
        pairs = f"{some['pairs']} pairs of equal noise, {some['cases']} cases"
        console.print(f"\n[bold]{title}: difference to {some['reference']}[/bold]: {pairs}", highlight=False)
        table = _table(metrics)
        for method in dict.fromkeys(method for method, _ in effects):
            cells = [_cell(effects.get((method, metric)), "effect", "+") for metric in metrics]
            table.add_row(method, *cells)
        console.print(table)


def _show_failed(console: Console, store: Store, run_id: str) -> None:
    rows = store.rows(
        "select undrawn.method, reason, count(*) as number,"
        " first(case_id || ', prompt ' || prompt_id order by subject_count, case_id, prompt_id) as first"
        " from undrawn join run_samples using (sample_key) where run_id = ? and status = 'failed'"
        " group by undrawn.method, reason order by number desc, undrawn.method, reason",
        [run_id],
    )
    for row in rows[:SHOWN_REASONS]:
        images = "1 image" if row["number"] == 1 else f"{row['number']} images"
        line = f"failed    {row['method']}: {images} (as {row['first']}): {row['reason']}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if len(rows) > SHOWN_REASONS:
        console.print(f"failed    and for {len(rows) - SHOWN_REASONS} other reasons: table undrawn", highlight=False)


def _table(metrics: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("method", no_wrap=True)
    for metric in metrics:
        table.add_column(TITLES.get(metric, metric), justify="right", no_wrap=True)
    return table


def _by_method_and_metric(store: Store, table: str, run_id: str, count: int) -> Rows:
    rows = store.rows(f"select * from {table} where run_id = ? and subject_count = ?", [run_id, count])
    return {(row["method"], row["metric"]): row for row in rows}


def _skipped(store: Store, run_id: str, count: int) -> dict[str, str]:
    """Why, by method that draws no cases of so many subjects."""
    rows = store.rows(
        "select undrawn.method, any_value(reason) as reason from undrawn join run_samples using (sample_key)"
        " where run_id = ? and subject_count = ? and status = 'skipped' group by undrawn.method",
        [run_id, count],
    )
    return {row["method"]: row["reason"] for row in rows}


def _cell(row: dict[str, Any] | None, name: str, sign: str = "") -> str:
    if row is None:
        return "-"
    mean = f"{row[name]:{sign}.3f}"
    return mean if row["low"] is None else f"{mean}\n[dim]{_short(row['low'])} {_short(row['high'])}[/dim]"


def _short(bound: float) -> str:
    return f"{bound:.2f}".replace("0.", ".", 1)


def _seconds(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _costs(store: Store, run_id: str, count: int) -> dict[str, tuple[float | None, float | None]]:
    """Seconds an image (the median: the first of a process pays for loading) and seconds a setup, by method."""
    rows = store.rows(
        """
        with mine as (select samples.* from samples join run_samples using (sample_key)
                      where run_id = ? and subject_count = ?),
             used as (select distinct method, setup_key from mine join sample_subjects using (sample_key))
        select method, median(mine.seconds) as image,
               (select avg(setups.seconds) from used join setups using (setup_key)
                where used.method = mine.method) as setup
        from mine group by method
        """,
        [run_id, count],
    )
    return {row["method"]: (row["image"], row["setup"]) for row in rows}
