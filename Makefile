.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help install demo test bench

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

bench: install ## speed and memory against baselines; BENCH_JSON=file writes the rows
	$(BIN)/python -m tests.bench $(if $(BENCH_JSON),--json $(BENCH_JSON))
