"""The model cards of the mini family, written from what was measured: `python -m umm_bench.mini.cards`."""
