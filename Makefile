.DEFAULT_GOAL := help
PYTHON ?= python3
TORCH ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# programs in .venv know where it lies
MOVED := $(shell [ ! -s .venv/installed ] || [ "$$(cat .venv/installed)" = "$(CURDIR)" ] || echo FORCE)
SEED ?= 1
COVERAGE ?=

.PHONY: help install hooks demo test lint types slow fix docs coverage structure results chaos simulate fuzz audit bench bench-scale

help: ## show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{sub(/:.*/, "", $$1); printf "  make %-11s %s\n", $$1, $$2}'

install: .venv/installed ## virtual environment .venv with the pins of constraints.txt; TORCH=cpu leaves CUDA out

.venv/installed: pyproject.toml constraints.txt $(if $(TORCH),FORCE) $(MOVED)
	@command -v $(PYTHON) >/dev/null || { echo "there is no $(PYTHON): install Python 3.12, or name another: make install PYTHON=..." >&2; exit 1; }
	@$(PYTHON) .ci/environment.py "$(TORCH)"
	$(if $(TORCH),$(PIP) install --no-deps -c constraints.txt --index-url https://download.pytorch.org/whl/$(TORCH) torch)
	$(PIP) install -c constraints.txt -e '.[worker,dev,docs]'
	@$(BIN)/genmill --version
	@echo "$(CURDIR)" > $@

FORCE:

demo: install ## the main job on real data: train, generate, schedule, download (minutes)
	$(BIN)/genmill demo

test: install ## lint, types, import contracts, documentation, tests; COVERAGE=1 measures coverage
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target types docs lint
	$(BIN)/pytest -n 3 --dist loadgroup $(if $(COVERAGE),--cov --cov-report=html)
	@$(if $(COVERAGE),echo "coverage: $$($(BIN)/coverage report --format=total)% of the lines; make coverage lists the others")

slow: install ## the longer tests, which `make test` leaves out
	$(BIN)/pytest -n 2 --dist loadgroup -m slow

lint: install ## style and import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

types: install ## mypy
	$(BIN)/mypy

coverage: install ## the lines that the last `make test COVERAGE=1` did not run; htmlcov/ shows them in place
	$(BIN)/coverage report --show-missing

fix: install ## format, and apply the safe fixes
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

hooks: install ## check each commit: ruff, mypy, import contracts
	$(BIN)/pre-commit install

docs: install ## the site, in docs/_build/html; a warning is an error
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -b html docs docs/_build/html

structure: install ## rooms, imports between them, sizes of functions and files
	$(BIN)/python -m tests.structure

results: install ## the quality table, on the data sets beside the project (an hour; ONLY="gan vae" for some)
	$(BIN)/python -m tests.results $(foreach case,$(ONLY),--only $(case))

chaos: install ## every fault against the real system, and an auditor; SEED=N picks the random ones, CHAOS_JSON=file writes the table
	SEED=$(SEED) $(BIN)/pytest -n 3 --dist worksteal -m chaos --show-capture=no tests/chaos

simulate: install ## the protocol under simulated faults: 100,000 seeds; SEEDS=N for another number, FIRST=N begins there
	$(BIN)/python -m tests.simulation --processes 2 --seeds $(or $(SEEDS),100000) --first $(or $(FIRST),0)

fuzz: install ## 20,000 mutated data sets, models, batches, addresses and edited records each, a million messages; FUZZ=N, MESSAGES=N
	GENMILL_FUZZ=$(or $(FUZZ),20000) GENMILL_MESSAGES=$(or $(MESSAGES),1000000) $(BIN)/pytest -n 2 --timeout 7200 -m "" \
		$(shell find tests -name test_fuzz.py) tests/integration/test_messages.py::test_very_many_mutated_messages_do_neither

audit: install ## the pins of constraints.txt against the advisories of PyPI; needs the network
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

bench: install ## speed and memory against baselines; BENCH_JSON=file writes the rows, QUICK=1 takes two minutes
	$(BIN)/python -m tests.bench $(if $(BENCH_JSON),--json $(BENCH_JSON)) $(if $(QUICK),--quick) $(foreach row,$(ONLY),--only $(row))

bench-scale: install ## a simulated fleet of a thousand workers on PostgreSQL and SQLite (half an hour)
	$(BIN)/python -m tests.bench --scale $(if $(BENCH_JSON),--json $(BENCH_JSON)) $(if $(QUICK),--quick)
