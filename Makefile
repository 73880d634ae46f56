# make demo   installs into .venv and runs the main job on bundled data
# make test   installs into .venv and runs the test suite
# make docs   installs into .venv and builds the documentation as a site below build/site
# make faults installs into .venv and kills, starves and spoils every stage for some minutes
# Exact versions come from constraints.txt; torch's pin there takes a CPU build where one is offered.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2

.PHONY: demo test faults lint docs clean

demo: $(VENV)/.demo-ready
	$(BIN)/cmgl demo

test: $(VENV)/.test-ready
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

faults: $(VENV)/.test-ready
	$(BIN)/python -m pytest -m faults -n $(WORKERS) --dist worksteal

lint: $(VENV)/.test-ready
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/.docs-ready
	$(BIN)/mkdocs build --quiet
	@echo "build/site/index.html"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo-ready: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.test-ready: pyproject.toml constraints.txt $(VENV)/.demo-ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $@

$(VENV)/.docs-ready: pyproject.toml constraints.txt $(VENV)/.demo-ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
