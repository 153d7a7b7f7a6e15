# Two commands for a newcomer: `make quickstart` and `make test`. Both make .venv and install everything, pinned.
PYTHON ?= python3
OUTPUT ?= quickstart
BIN := .venv/bin
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV
.DEFAULT_GOAL := help
.PHONY: help quickstart test bench lint clean

help: ## what can be made
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

# The stamp is newer than what decides the installation, or it is made again.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Pluri needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@touch $@

quickstart: .venv/installed ## the main job on real data, end to end: opens with quickstart/report.html
	$(BIN)/pluri quickstart --output $(OUTPUT)

test: .venv/installed ## all tests, the network blocked
	$(BIN)/python -m pytest

lint: .venv/installed ## ruff, pyright, and the layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-logo

bench: .venv/installed ## every benchmark, quickly; the tables go to bench/*.json
	@mkdir -p bench
	@set -e; for file in $$(grep -l '__main__' benchmarks/*.py); do name=$$(basename $$file .py); echo "== $$name"; \
	  $(BIN)/python $$file --quick --json bench/$$name.json; done

clean: ## removes the virtual environment and what the targets above made
	rm -rf .venv bench quickstart
