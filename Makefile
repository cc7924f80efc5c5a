.DEFAULT_GOAL := help
.PHONY: help setup newest check format test test-fast coverage demo docs smoke-full constraints
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
PYTEST := pytest -n 2 --dist worksteal
# Tests write and remove many small files. In memory, where it has room, that takes half the time.
IN_MEMORY := $(shell df --output=avail /dev/shm 2>/dev/null | awk 'NR == 2 && $$1 > 6000000 { print "TMPDIR=/dev/shm" }')

help: ## Show what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## Create .venv with everything pinned by constraints.txt

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[all,dev,docs]'
	@touch $@

newest: ## Create .venv with the newest transformers, diffusers and TRL, and no constraints
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[all,dev,docs]'
	$(BIN)/pip install --quiet --upgrade transformers diffusers trl # beyond pyproject.toml's upper bounds too
	touch $(STAMP)

check: setup ## Check formatting, lint and strict types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup ## Format the code and apply ruff's automatic fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: setup ## Run all tests
	$(IN_MEMORY) OMP_NUM_THREADS=1 $(BIN)/$(PYTEST)

test-fast: setup ## Run the tests that are not marked slow (under 2 minutes on two cores)
	$(IN_MEMORY) OMP_NUM_THREADS=1 $(BIN)/$(PYTEST) -m 'not slow'

coverage: setup ## Run all tests and print which lines and branches of src/semdpo they reach
	$(BIN)/coverage erase
	$(IN_MEMORY) OMP_NUM_THREADS=1 $(BIN)/coverage run -m $(PYTEST)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

demo: setup ## Run the whole pipeline on the tiny world and write its report
	$(BIN)/semdpo demo

docs: setup ## Build the documentation into site/, which opens from disk
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

smoke-full: setup ## Full-size models with random weights: draw one picture and score it (14 GB of disk, 2 minutes)
	$(BIN)/python benchmarks/smoke_full.py

constraints: ## Pin the newest versions that fit pyproject.toml
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[all,dev,docs]' 'torch==2.13.0'
	(echo '# Everything that `make setup` installs, pinned. Renew with `make constraints`.'; \
	  $(BIN)/pip freeze --exclude-editable | sed 's/+cpu//') > constraints.txt
	touch $(STAMP)
