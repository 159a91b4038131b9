# `make` lists the targets. PYTHON: the interpreter (3.11 or newer) from which .venv is made.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done

.DEFAULT_GOAL := help
.PHONY: help setup demo test check-data bench docs clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup: $(STAMP) ## make .venv and install the package with everything its tests need

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "setup: needs Python 3.11 or newer, got $$($(PYTHON) --version 2>&1): make setup PYTHON=python3.12" >&2; exit 1; }
	@if $(BIN)/python -m pip --version >/dev/null 2>&1; then echo "setup: using $(VENV)"; \
		else echo "setup: making $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv --clear $(VENV); fi
	@echo "setup: installing torch (a large download where it is not cached)"
	@$(BIN)/python -m pip install --quiet -c constraints.txt torch
	@echo "setup: installing anacrusis and its development tools, versions from constraints.txt"
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $(STAMP)
	@echo "setup: done, try: $(BIN)/anacrusis --help"

demo: setup ## learn a prompt on the sample messages and show what it gained
	$(BIN)/anacrusis demo

test: setup ## lint, formatting, types, tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy src
	$(BIN)/pytest -n 2

check-data: setup ## the slow checks on real data
	$(BIN)/pytest -m data

bench: setup ## the benchmarks in bench/
	$(BIN)/python -m bench

docs: setup ## write the generated parts of the documentation anew
	$(BIN)/python -m anacrusis._docs --write

clean: ## remove caches and build results; .venv stays
	rm -rf build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
