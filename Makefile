# Sluice: what there is to do. `make` prints this list.

# Where the product keeps everything, and where it listens.
DATA ?= var
PORTAL_PORT ?= 8443
SSH_PORT ?= 2222
# More for pytest, for example: make test PYTEST_ARGS="-k revoke -x"
PYTEST_ARGS ?=

PY := .venv/bin/python
BIN := .venv/bin
# The environment that `manage.py` needs outside the demo.
MANAGE := SLUICE_DATA_DIR="$(abspath $(DATA))" $(PY) manage.py

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --no-builtin-rules
.SUFFIXES:

.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## "; print "make targets:" } \
	  /^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo "variables: DATA=$(DATA) PORTAL_PORT=$(PORTAL_PORT) SSH_PORT=$(SSH_PORT) PYTHON=... PYTEST_ARGS=..."

.PHONY: setup
setup: ## Install what the product needs (.venv, node_modules)
	@scripts/setup.sh base

.PHONY: setup-dev
setup-dev: ## The same plus tests, checks and documentation
	@scripts/setup.sh dev

.PHONY: demo
demo: setup ## Start the product with a demo plant, play the story, stay up (Ctrl-C ends it)
	@exec $(PY) manage.py demo --data "$(DATA)" \
	  --portal-port $(PORTAL_PORT) --ssh-port $(SSH_PORT)

.PHONY: demo-reset
demo-reset: ## Wipe the demo's data directory
	@scripts/demo-reset.sh "$(DATA)"

.PHONY: run
run: setup ## Start the product in one process, without the demo
	@$(MANAGE) migrate --verbosity 0
	@exec env SLUICE_DATA_DIR="$(abspath $(DATA))" SLUICE_PORTAL_PORT=$(PORTAL_PORT) \
	  SLUICE_SSH_PORT=$(SSH_PORT) $(PY) manage.py run

.PHONY: test
test: setup-dev ## Run all tests: the database rules on PostgreSQL, then everything on SQLite
	@scripts/test-tools.sh
	@scripts/test.sh $(PYTEST_ARGS)

.PHONY: coverage
coverage: setup-dev ## The same with branch coverage
	@scripts/test-tools.sh
	@scripts/test.sh --cov --cov-append --cov-report=term-missing:skip-covered $(PYTEST_ARGS)

.PHONY: check
check: setup-dev ## Format, lint, types, imports, migrations, templates, scripts, locks
	@scripts/check.sh

.PHONY: bench-gateway
bench-gateway: setup-dev ## Measure the gateway beside ssh, ssh -J and other bastions (QUICK=1)
	@scripts/test-tools.sh
	@exec $(PY) -m benchmarks $(if $(QUICK),--quick) $(BENCH_ARGS)

.PHONY: bench
bench: bench-gateway ## The same

.PHONY: docs
docs: setup-dev ## Build the documentation into docs/_build/html
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

.PHONY: lock
lock: ## Write the hashed locks again (all of requirements/*.txt, package-lock.json)
	@scripts/lock.sh

.PHONY: clean
clean: ## Remove everything set-up and tests made; the data directory stays
	rm -rf .venv .boot .node node_modules docs/_build build dist htmlcov test-results
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
