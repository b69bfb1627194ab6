# Everything is done in .venv, which these targets make. A machine with Python 3.11 or newer and make is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo

.PHONY: demo test lint check clean generalisation reproduce

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: $(VENV)/.installed  ## train on compressibility, evaluate on held-out prompts, print where the report is
	rm -rf $(DEMO)
	$(BIN)/ddpo train --reward compressibility --out $(DEMO)
	$(BIN)/ddpo eval --checkpoint $(DEMO)

test: $(VENV)/.dev  ## all tests, offline
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: $(VENV)/.dev  ## formatting, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

generalisation: $(VENV)/.installed  ## docs/generalisation.md and the README's figures: 22 short runs, about 45 minutes on two cores; goes on where it stopped
	$(BIN)/python tools/generalisation.py

reproduce: $(VENV)/.installed  ## docs/reproduction.md, the paper's comparison of methods in small: 51 short runs, about two hours on two cores; goes on where it stopped
	$(BIN)/python tools/reproduce.py --workers 2

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
