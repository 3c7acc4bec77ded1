"""Subject-driven generation, trained, sampled and measured: the commands, the bench and what plugs into it."""

from umm_bench.base import Base, load_base
from umm_bench.errors import UserError

__all__ = ["Base", "UserError", "load_base"]
