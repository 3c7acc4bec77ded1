"""What `python -m umm_bench.mini.evaluate` measures: one small file a model or question."""
