"""Several subjects in one picture: where each is, and what became of it."""

from umm_bench.metrics.several.labels import LABELS, Verdict
from umm_bench.metrics.several.metric import Several, SeveralConfig

__all__ = ["LABELS", "Several", "SeveralConfig", "Verdict"]
