"""What is to be generated: one module a suite, found by name in the entry-point group `umm_bench.suites`."""

from umm_bench.suites.base import SUITES, Check, Suite

__all__ = ["SUITES", "Check", "Suite"]
