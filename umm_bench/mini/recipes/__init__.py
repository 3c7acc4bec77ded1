"""How each model of the mini family is trained; `python -m umm_bench.mini.pretrain NAME` runs one."""
