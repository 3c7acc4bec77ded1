"""The tables that a run ends with in the terminal: one for cases of one subject, one for those of two, ..."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from umm_bench.bench.selection import FLOOR
from umm_bench.bench.store import Store
from umm_bench.metrics.several import LABELS

TITLES = {
    "clip_t": "CLIP-T",
    "clip_i": "CLIP-I",
    "dino": "DINO",
    "masc": "MaSC",
    "masc_prompt": "MaSC-T",
    "identity": "ident.",
    "concept": "concept",
    "background": "backgr.",
    "gallery_rank": "rank",
    "gallery_reciprocal_rank": "1/rank",
    "prior_cosine": "prior",
    "prior_kid": "KID",
    "prior_fid": "FID",
    "several": "right",
    **{f"several_{label}": label for label in LABELS},
}
"""In the order of their columns; other metrics follow under their own names."""

COUNTS = {1: "One subject", 2: "Two subjects", 3: "Three subjects"}
SHOWN_REASONS = 6

REAL = "real images"

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
    scale = f"{FLOOR}: the floor of the scale; {REAL}: its ceiling, the subjects' own against each other"
    costs = "s/img: median seconds an image; setup: mean seconds of a setup"
    console.print(f"[dim]{scale}\n{costs}[/dim]", highlight=False)
    _show_failed(console, store, run_id)
    _show_unscored(console, store, run_id)


def _show(console: Console, store: Store, run_id: str, methods: Sequence[str], count: int) -> None:
    title = COUNTS.get(count, f"{count} subjects")
    summaries = _by_method_and_metric(store, "summaries", run_id, count)
    sets = _by_method_and_metric(store, "set_scores", run_id, count)
    effects = _by_method_and_metric(store, "comparisons", run_id, count)
    skipped = _skipped(store, run_id, count)
    found = {metric for _, metric in (*summaries, *sets)}
    labels = [f"several_{label}" for label in LABELS if f"several_{label}" in found]
    ordered = [name for name in TITLES if name in found] + sorted(found - TITLES.keys())
    metrics = [name for name in ordered if name not in labels]
    drawn = [method for method in methods if method not in skipped]
    means = {key: _cell(row, "mean") for key, row in summaries.items()}
    means |= {key: _cell(row, "value") for key, row in sets.items()}
    costs = _costs(store, run_id, count)
    for method, (image, setup) in costs.items():
        means |= {(method, "s/img"): _seconds(image, 2), (method, "setup"): _seconds(setup, 1)}
    ceilings = {(REAL, metric): f"[dim]{value:.3f}[/dim]" for metric, value in _ceilings(summaries).items()}
    console.print(
        f"\n[bold]{title}: means with 95 % intervals, clustered by case, of three or more[/bold]", highlight=False
    )
    rows = [*drawn, REAL] if ceilings else drawn
    _print_tables(console, rows, [*metrics, "s/img", "setup"], means | ceilings)
    for method, reason in skipped.items():
        console.print(f"{method}: {reason}", highlight=False, markup=False, soft_wrap=True)
    if labels:
        console.print(f"\n[bold]{title}: what became of the subjects that are not right[/bold]", highlight=False)
        _print_tables(console, drawn, labels, means)
    if effects:
        some = next(iter(effects.values()))
        pairs = f"{some['pairs']} pairs of equal noise, {some['cases']} cases"
        console.print(f"\n[bold]{title}: difference to {some['reference']}[/bold]: {pairs}", highlight=False)
        differences = {key: _cell(row, "effect", "+") for key, row in effects.items()}
        compared = [metric for metric in metrics if any(metric == name for _, name in effects)]
        _print_tables(console, list(dict.fromkeys(method for method, _ in effects)), compared, differences)


def _show_unscored(console: Console, store: Store, run_id: str) -> None:
    """What could not be scored; and why a metric that was asked for has no score at all."""
    rows = store.rows(
        "select metric, status, reason, count(*) as number, first(sample_key order by sample_key) as first"
        " from unscored join run_samples using (sample_key) where run_id = ? and (status = 'failed' or not exists"
        " (select 1 from run_protocols where run_protocols.run_id = run_samples.run_id"
        " and run_protocols.metric = unscored.metric))"
        " group by metric, status, reason order by number desc, metric, reason",
        [run_id],
    )
    for row in rows[:SHOWN_REASONS]:
        images = "1 image" if row["number"] == 1 else f"{row['number']} images"
        line = f"unscored  {row['metric']}: {images} (as {row['first']}): {row['reason']}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if len(rows) > SHOWN_REASONS:
        console.print(f"unscored  and for {len(rows) - SHOWN_REASONS} other reasons: table unscored", highlight=False)


def _print_tables(
    console: Console, rows: Sequence[str], columns: Sequence[str], cells: dict[tuple[str, str], str]
) -> None:
    """One table, or as many as it takes for none to be wider than the terminal."""
    if not rows:
        return
    first = max(len(row) for row in ["method", *rows])
    widths = {
        column: 1 + max(Text.from_markup(line).cell_len for row in rows for line in _lines(row, column, cells))
        for column in columns
    }
    left = list(columns)
    while left:
        taken = [left.pop(0)]
        while left and first + 1 + sum(widths[column] for column in [*taken, left[0]]) <= console.width:
            taken.append(left.pop(0))
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
        table.add_column("method", no_wrap=True)
        for column in taken:
            table.add_column(TITLES.get(column, column), justify="right", no_wrap=True)
        shown = [row for row in rows if row != REAL or any((row, column) in cells for column in taken)]
        for row in shown:
            table.add_row(row, *(cells.get((row, column), "" if row == REAL else "-") for column in taken))
        console.print(table)


def _lines(row: str, column: str, cells: dict[tuple[str, str], str]) -> list[str]:
    return [TITLES.get(column, column), *cells.get((row, column), "-").split("\n")]


def _ceilings(summaries: Rows) -> dict[str, float]:
    """What real pictures score, by metric: of the method that has most samples, where it is known."""
    largest = sorted(summaries.items(), key=lambda item: item[1]["samples"])
    return {metric: row["ceiling"] for (_, metric), row in largest if row["ceiling"] is not None}


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
