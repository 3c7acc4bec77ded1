"""A measured figure with its bar; figures as a table or JSON lines. Every command that measures prints these."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One measured figure; `bar` is what the project aims at, None where there is no aim; `note` is for people."""

    name: str
    value: float
    unit: str
    higher_is_better: bool
    bar: float | None = None
    note: str = ""

    @property
    def ok(self) -> bool | None:
        """Whether the bar is reached; None without one."""
        if self.bar is None:
            return None
        return self.value >= self.bar if self.higher_is_better else self.value <= self.bar

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "ok": self.ok}


def emit(figures: Iterable[Figure], as_json: bool) -> None:
    """Print the figures as they come: JSON lines, or one table at the end."""
    table = Table("figure", "value", "unit", "aim", "reached", "note")
    for figure in figures:
        if as_json:
            print(json.dumps(figure.as_dict()), flush=True)
            continue
        aim = "" if figure.bar is None else f"{'≥' if figure.higher_is_better else '≤'} {figure.bar:g}"
        reached = {None: "", True: "yes", False: "no"}[figure.ok]
        table.add_row(figure.name, f"{figure.value:.4g}", figure.unit, aim, reached, figure.note)
    if not as_json:
        Console().print(table)
