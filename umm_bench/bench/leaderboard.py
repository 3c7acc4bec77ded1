"""The tables that a run ends with in the terminal."""

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

Rows = dict[tuple[str, str], dict[str, Any]]
"""By (method, metric)."""


def show_leaderboard(console: Console, store: Store, run_id: str, methods: Sequence[str]) -> None:
    """Means with 95 % intervals and costs a method, then the paired effects, as the store has them."""
    summaries = _by_method_and_metric(store, "summaries", run_id)
    effects = _by_method_and_metric(store, "comparisons", run_id)
    found = {metric for _, metric in summaries}
    metrics = [name for name in TITLES if name in found] + sorted(found - TITLES.keys())
    costs = _costs(store, run_id)
    table = _table(metrics)
    table.add_column("s/img", justify="right")
    table.add_column("setup", justify="right")
    for method in methods:
        scores = [_cell(summaries.get((method, metric)), "mean") for metric in metrics]
        image, setup = costs.get(method, (0.0, 0.0))
        table.add_row(method, *scores, f"{image:.2f}", f"{setup:.1f}")
    console.print("\n[bold]Means with 95 % intervals, clustered by subject[/bold]", highlight=False)
    console.print(table)
    console.print("[dim]s/img: median seconds an image; setup: mean seconds a subject[/dim]", highlight=False)
    if effects:
        some = next(iter(effects.values()))
        pairs = f"{some['pairs']} pairs of equal noise, {some['subjects']} subjects"
        console.print(f"\n[bold]Difference to {some['reference']}[/bold]: {pairs}", highlight=False)
        table = _table(metrics)
        for method in dict.fromkeys(method for method, _ in effects):
            cells = [_cell(effects.get((method, metric)), "effect", "+") for metric in metrics]
            table.add_row(method, *cells)
        console.print(table)


def _table(metrics: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("method", no_wrap=True)
    for metric in metrics:
        table.add_column(TITLES.get(metric, metric), justify="right", no_wrap=True)
    return table


def _by_method_and_metric(store: Store, table: str, run_id: str) -> Rows:
    rows = store.rows(f"select * from {table} where run_id = ?", [run_id])
    return {(row["method"], row["metric"]): row for row in rows}


def _cell(row: dict[str, Any] | None, name: str, sign: str = "") -> str:
    if row is None:
        return "-"
    mean = f"{row[name]:{sign}.3f}"
    return mean if row["low"] is None else f"{mean}\n[dim]{_short(row['low'])} {_short(row['high'])}[/dim]"


def _short(bound: float) -> str:
    return f"{bound:.2f}".replace("0.", ".", 1)


def _costs(store: Store, run_id: str) -> dict[str, tuple[float, float]]:
    """Seconds an image (the median: the first of a process pays for loading) and seconds a setup, by method."""
    rows = store.rows(
        """
        with mine as (select samples.* from samples join run_samples using (sample_key) where run_id = ?),
             used as (select distinct method, setup_key from mine)
        select method, median(mine.seconds) as image,
               (select avg(setups.seconds) from used join setups using (setup_key)
                where used.method = mine.method) as setup
        from mine group by method
        """,
        [run_id],
    )
    return {row["method"]: (row["image"], row["setup"]) for row in rows}
