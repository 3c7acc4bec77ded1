.DEFAULT_GOAL := help
PYTHON ?= python3
PY := .venv/bin/python
INSTALLED := .venv/.installed
OLDEST := .venv-oldest/bin/python
# Two processes of one thread each: the models of the tests are too small for more threads to help.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses 2 --dist loadfile
PIP := -m pip install --quiet --disable-pip-version-check

.PHONY: help bench benchmarks focus test test-slow test-oldest fuzz lint smoke docs mini clean

help: ## this list; each target sets up what it needs
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/p' Makefile | expand -t 22

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PY) $(PIP) -c constraints.txt -e ".[dev]"
	touch $@

bench: $(INSTALLED) ## mine a small corpus, run UMM against DreamBooth, Textual Inversion and SD, on subjects and pairs: leaderboard, DuckDB, HTML report
	$(PY) -m curation.build --source laion --limit 200
	$(PY) -m umm_bench.run --methods sd,textual_inversion,dreambooth,umm --subjects 4 --pairs 2 --prompts 3 \
		--set dreambooth.steps=100 --set textual_inversion.steps=150

benchmarks: $(INSTALLED) ## measure speed and memory beside what one would use instead, and write docs/performance.md; ONLY=sampling,training
	$(PY) -m benchmarks $(if $(ONLY),--only $(ONLY))

focus: $(INSTALLED) ## mine what the rare subjects of the last run lack, train on with it, run them again, report the gain
	$(PY) -m umm_bench.focus

test: $(INSTALLED) ## the tests
	$(PYTEST)

test-slow: $(INSTALLED) ## full-size checks, and every command of the documents that runs on mini
	$(PY) -m pytest -m slow

test-oldest: ## the tests with the oldest releases that are supported, in .venv-oldest
	test -x $(OLDEST) || $(PYTHON) -m venv .venv-oldest
	$(OLDEST) $(PIP) -c constraints-oldest.txt -e ".[test]"
	$(PYTEST:$(PY)%=$(OLDEST)%)

FUZZ ?= 10000
fuzz: $(INSTALLED) ## 10,000 inputs of each kind, new ones each time, and what became of them
	UMM_FUZZ=$(FUZZ) $(PYTEST:%loadfile=%load) tests/fuzz

lint: $(INSTALLED) ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

smoke: ## the wheel in a fresh environment: mine and run from another folder, nothing written outside it
	$(PYTHON) -m tests.smoke

docs: $(INSTALLED) ## draw docs/architecture.svg from the imports
	$(PY) docs/architecture.py

MINI_PAIRS ?= 16000
mini: $(INSTALLED) ## the mini family from the sprites: hours on two cores; resumes
	for name in vae clip sd decoder image_encoder scoring_clip encoder detector; do $(PY) -m umm_bench.mini.pretrain $$name || exit $$?; done
	$(PY) -m curation.evaluate --tune --save
	$(PY) -m umm_bench.mini.world.corpus --size $(MINI_PAIRS) --varied
	$(PY) -m curation.build --source laion --input data/mini-laion-$(MINI_PAIRS)-varied --output data/pairs-$(MINI_PAIRS)-varied
	$(PY) -m umm_bench.train --data data/pairs-$(MINI_PAIRS)-varied --base mini --output runs/mini/tiue-varied --placement before \
		--num-pseudo-words 4 --head-rate 1 --distill 0.9 --summary-steps 2000 --steps 4000 --batch-size 32 --lr 7e-4 --min-snr-gamma 0 --views 2 \
		--augment-rotation 10 --augment-colour 0 --resume
	$(PY) -m umm_bench.mini.family runs/mini/tiue-varied
	$(PY) -m umm_bench.mini.evaluate --write
	$(PY) -m umm_bench.mini.evaluation.comparison --write
	$(PY) -m umm_bench.mini.cards

clean: ## what commands have written here: data, runs, reports
	rm -rf data runs reports/run-* reports/index.html reports/published.html reports/samples reports/setups reports/features reports/degraded reports/*.duckdb*
