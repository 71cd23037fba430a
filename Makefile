# Each target starts from git, make and Python >= 3.11 with venv; the second run finds everything in place.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p && break; done)
VENV   ?= .venv
BIN    := $(VENV)/bin
OUT    ?= demo
ARGS   ?= -m "not slow and not gpu"

.PHONY: help demo test lint docs bench validate clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

demo: $(VENV)/.run  ## the whole chain on a synthetic recording, ending in demo/report.html (OUT=folder)
	$(BIN)/brainmu demo --out $(OUT) --overwrite

test: $(VENV)/.dev  ## the tests (ARGS="..." goes to pytest; ARGS='-m "not gpu"' runs the slow ones too)
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.dev  ## ruff, pyright, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

docs: $(VENV)/.docs  ## execute the notebooks and build the documentation into site/
	$(BIN)/python docs/execute.py
	$(BIN)/mkdocs build --strict

bench: $(VENV)/.dev  ## speed, memory and accuracy beside named peers (ARGS=--quick for a short run)
	$(BIN)/python -m benchmarks $(if $(filter command,$(origin ARGS)),$(ARGS))

validate: $(VENV)/.dev  ## error rates of the effect designs on planted truth: hours, resumable (ARGS="--studies 100" for fewer)
	$(BIN)/python -m brainmu.causal.validate --out validation --jobs 2 $(if $(filter command,$(origin ARGS)),$(ARGS))

clean:  ## remove what the targets made
	rm -rf $(VENV) $(OUT) site dist .pytest_cache .ruff_cache

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "no python3 found: install Python 3.11 or newer with venv, or pass PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than 3.11: pass PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch comes first and alone: its version is the one whose CPU build the constraints name.
$(VENV)/.run: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

$(VENV)/.docs: $(VENV)/.dev
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[docs]"
	@touch $@
