"""How each mini model is trained: one recipe a file, run by `python -m umm_bench.mini.pretrain NAME`."""
