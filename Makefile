# make bench | test | lint | fuzz | mini - each sets up what it needs.
PYTHON ?= python3
PY := .venv/bin/python
INSTALLED := .venv/.installed

.PHONY: bench test lint fuzz mini clean

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

# Mine a small corpus, then run UMM against DreamBooth on the mini suite: leaderboard, DuckDB, HTML report.
bench: $(INSTALLED)
	$(PY) -m curation.build --source laion
	$(PY) -m umm_bench.run --methods umm,dreambooth

test: $(INSTALLED)
	$(PY) -m pytest

lint: $(INSTALLED)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

# 10,000 odd inputs of each kind; prints what it tried and how each ended. `make test` tries a few of each.
fuzz: $(INSTALLED)
	UMM_FUZZ=1 $(PY) -m pytest tests/fuzz

# Everything from the sprites: each model of the mini family, the pairs, the TIUE. Hours on two cores; resumes.
MINI_PAIRS ?= 16000
mini: $(INSTALLED)
	for name in vae clip sd decoder image_encoder scoring_clip encoder detector; do $(PY) -m umm_bench.mini.pretrain $$name || exit $$?; done
	$(PY) -m curation.evaluate --tune --save
	$(PY) -m umm_bench.mini.world.corpus --size $(MINI_PAIRS) --varied
	$(PY) -m curation.build --source laion --input data/mini-laion-$(MINI_PAIRS)-varied --output data/pairs-$(MINI_PAIRS)-varied
	$(PY) -m umm_bench.train --data data/pairs-$(MINI_PAIRS)-varied --base mini --output runs/mini/tiue-varied --residual --head-rate 1 \
		--steps 10000 --lr 5e-4 --min-snr-gamma 0 --resume
	$(PY) -m umm_bench.mini.family runs/mini/tiue-varied
	$(PY) -m umm_bench.mini.evaluate --write
	$(PY) -m umm_bench.mini.evaluation.comparison --write
	$(PY) -m umm_bench.mini.cards

clean:
	rm -rf data runs reports/run-* reports/samples reports/setups reports/*.duckdb*
