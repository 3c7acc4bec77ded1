"""Subject-driven generation, trained, sampled and measured: the commands, the bench and what plugs into it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from umm_bench.base import Base, load_base
from umm_bench.errors import UserError

if TYPE_CHECKING:
    import pandas

__all__ = ["Base", "UserError", "load_base", "results"]


def results(folder: str | Path = "reports", run: str = "latest") -> pandas.DataFrame:
    """The scores of a run as a pandas frame, a row each: see `umm_bench.bench.keeping.frames.results`."""
    from umm_bench.bench.keeping import frames  # here: every module of the project imports this one first

    return frames.results(folder, run)
