# All targets work in .venv, which they make. Python 3.11 or newer and make are enough.
# Packages have the versions of constraints.txt; CONSTRAINTS= (nothing) installs the newest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo
CONSTRAINTS ?= --constraint constraints.txt
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS)

.PHONY: demo gamed test test-latest test-oldest constraints lint check clean alignment geneval generalisation reproduce build site notebook torture

$(VENV)/.installed: pyproject.toml constraints.txt constraints-oldest.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e .
	touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(INSTALL) -e '.[dev]'
	touch $@

demo: $(VENV)/.installed  ## train on prompt alignment, evaluate on held-out prompts, write a report
	rm -rf $(DEMO)
	$(BIN)/ddpo train --model emoji-scenes --reward alignment:model=emoji --stop-when held-out-falls --out $(DEMO)
	$(BIN)/ddpo eval --checkpoint $(DEMO) --limit 40

gamed: $(VENV)/.installed  ## the same for compressibility, which is gamed; the report says so
	rm -rf runs/gamed
	$(BIN)/ddpo train --reward compressibility --out runs/gamed
	$(BIN)/ddpo eval --checkpoint runs/gamed

test: $(VENV)/.dev  ## all tests, offline
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-latest:  ## all tests with the newest versions of all packages, in an environment of its own
	$(MAKE) test VENV=.venv-latest CONSTRAINTS=

test-oldest:  ## all tests with the oldest supported versions, in an environment of its own
	$(MAKE) test VENV=.venv-oldest CONSTRAINTS='--constraint constraints-oldest.txt'

constraints:  ## a new constraints.txt, from the newest versions of all packages
	$(MAKE) .venv-latest/.dev VENV=.venv-latest CONSTRAINTS=
	grep '^#' constraints.txt > constraints.new
	.venv-latest/bin/python -m pip freeze --all --exclude-editable | grep -v '^pip==' >> constraints.new
	mv constraints.new constraints.txt

lint: $(VENV)/.dev  ## formatting, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

geneval: $(VENV)/.installed  ## docs/geneval.md: three runs and their evaluation; resumes
	$(BIN)/python tools/geneval.py

generalisation: $(VENV)/.installed  ## docs/generalisation.md: 22 runs, 45 minutes on two cores; resumes
	$(BIN)/python tools/generalisation.py

alignment: $(VENV)/.installed  ## docs/alignment.md: 17 runs on the model of scenes; resumes
	$(BIN)/python tools/alignment.py

reproduce: $(VENV)/.installed  ## docs/reproduction.md: 51 runs, about two hours on two cores; resumes
	$(BIN)/python tools/reproduce.py --workers 2

torture: $(VENV)/.dev  ## docs/reliability.md: all trials, about an hour on two cores; not in CI
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python tools/torture --json runs/torture.json

.venv-site/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-site
	.venv-site/bin/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) typer \
	    $$($(PYTHON) -c "import tomllib as t; p = t.load(open('pyproject.toml', 'rb'))['project']; \
	    print(*p['optional-dependencies']['docs'])")
	touch $@

site: .venv-site/.installed  ## site/: the documentation as a website, which opens without a network
	.venv-site/bin/python tools/docs_site --out site

build: $(VENV)/.dev  ## dist/: the sdist and the wheel, as users install them
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*

notebook: $(VENV)/.dev  ## runs/notebook.ipynb: examples/notebook.ipynb run in an empty folder
	HF_HUB_OFFLINE=1 $(BIN)/python tools/run_notebook.py --out runs/notebook.ipynb

clean:
	rm -rf $(VENV) .venv-site .venv-latest .venv-oldest .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
