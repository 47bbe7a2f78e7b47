.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
SEED ?= 1

.PHONY: help install demo test results chaos bench

help: ## show this help
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

install: .venv/installed ## virtual environment .venv with the pins of constraints.txt

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[worker,dev]'
	@touch $@

demo: install ## the main job on real data: train, generate, schedule, download (minutes)
	$(BIN)/genmill demo

test: install ## lint, types, import contracts, tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2 --dist loadgroup

results: install ## the quality table, on the data sets beside the project (an hour; ONLY="gan vae" for some)
	$(BIN)/python -m tests.results $(foreach case,$(ONLY),--only $(case))

chaos: install ## random faults against the real system, and an auditor; SEED=N picks them
	SEED=$(SEED) $(BIN)/pytest -n 0 -m chaos --show-capture=no tests/chaos

bench: install ## speed and memory against baselines; BENCH_JSON=file writes the rows
	$(BIN)/python -m tests.bench $(if $(BENCH_JSON),--json $(BENCH_JSON))
