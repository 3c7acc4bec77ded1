"""The playground behind `python -m umm_bench.demo`: what is drawn, and the little server of its one page."""
