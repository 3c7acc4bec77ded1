"""How each model of the mini family is measured; `python -m umm_bench.mini.evaluate NAME` prints the figures."""
