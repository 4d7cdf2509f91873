# One command each, from a machine that has Python 3.11 to 3.13, make and git.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

# Bytecode is kept whatever the shell says: pip compiles none, and dozens of processes import the same libraries.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help venv run test bench lint format clean

help:
	@echo "make run    set everything up, play simulated users against a live Geospot, print the table, leave the pages open"
	@echo "make test   set everything up, run the tests"
	@echo "make bench  the speed marks (minutes)"
	@echo "make lint   ruff and strict types"
	@echo "make venv   only prepare $(VENV)"

# torch first and alone: a pinned version lets pip take a CPU build where one is offered.
# GeoCLIP goes in without its dependencies: one of them has no CPU build and breaks the import beside a CPU torch.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --no-compile -c constraints.txt torch numpy
	$(BIN)/python -m pip install -q --no-compile -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install -q --no-compile -c constraints.txt --no-deps geoclip
	$(BIN)/python -m pip install -q --no-compile -c constraints.txt -e '.[gym]' || echo "reasoning-gym cannot be built here (it needs a C compiler): what needs it is skipped"
	touch $(STAMP)

venv: $(STAMP)

run: venv
	$(BIN)/dayjob lab day

test: venv
	$(BIN)/python -m pytest -n 2 --dist loadfile

bench: venv
	$(BIN)/dayjob lab speed

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) data runs
