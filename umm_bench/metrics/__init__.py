"""What scores an image: one small module a metric, found by name in the entry-point group `umm_bench.metrics`."""

from umm_bench.metrics.base import METRICS, Metric, Score, ScoredSample

__all__ = ["METRICS", "Metric", "Score", "ScoredSample"]
