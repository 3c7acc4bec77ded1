"""The engine of a run: what is to be made, making and scoring it, keeping it, comparing methods."""

from umm_bench.bench.plan import make_plan
from umm_bench.bench.selection import Request, select
from umm_bench.bench.store import Store

__all__ = ["Request", "Store", "make_plan", "select"]
