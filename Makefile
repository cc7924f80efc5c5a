.DEFAULT_GOAL := help
.PHONY: help setup check format test demo docs smoke-full constraints
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

help: ## Show what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## Create .venv with everything pinned by constraints.txt

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[all,dev,docs]'
	@touch $@

check: setup ## Format, lint and strict types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup ## Mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: setup ## Run the tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

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
