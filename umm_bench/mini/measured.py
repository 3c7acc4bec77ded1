"""The mini family's figures as they were last measured: `--write` keeps them, the model cards quote them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from atomic import whole_file
from figures import Figure
from umm_bench.errors import UserError

FIGURES = Path(__file__).parent / "figures.json"
"""The last written measurement of each figure: what the model cards quote."""


def read_figures(path: Path = FIGURES) -> dict[str, dict[str, Any]]:
    """Measured figures by name, as `Figure.as_dict` gives them. UserError where none were written."""
    if not path.exists():
        raise UserError(f"{path} is not there; `python -m umm_bench.mini.evaluate --write` measures and writes it")
    return {row["name"]: row for row in json.loads(path.read_text(encoding="utf-8"))}


def write_figures(figures: Sequence[Figure], path: Path = FIGURES) -> None:
    """Replace the figures of these names and keep all others; whole or not at all."""
    rows = (read_figures(path) if path.exists() else {}) | {f.name: f.as_dict() for f in figures}
    lines = ",\n".join(json.dumps(rows[name], ensure_ascii=False) for name in sorted(rows))
    with whole_file(path) as unfinished:
        unfinished.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
