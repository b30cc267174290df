# Everything runs in .venv of this checkout, made on first use. Needs Python 3.11-3.13, pip, git and GNU make.
#   make PYTHON=python3.12 test     another interpreter (only when .venv is made)
#   make JOBS=4 test                more workers

SHELL := /bin/sh
.SHELLFLAGS := -eu -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# Below VENV everything has its own stamp: installed once, and again when any pyproject.toml changes.
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --no-input
JOBS ?= 2
# A package index has its bad moments: once more before it counts.
INSTALL := again() { "$$@" || { echo 'once more in 15 s' >&2; sleep 15; "$$@"; }; }; again $(PIP) install --quiet

PYPROJECTS := pyproject.toml $(wildcard core/pyproject.toml plugins/*/pyproject.toml signers/*/pyproject.toml)
DISTRIBUTIONS := $(patsubst %/pyproject.toml,%,$(filter %/pyproject.toml,$(PYPROJECTS)))
EDITABLE := $(DISTRIBUTIONS:%=-e %)
# Tests may be looser: they hand over what is wrong on purpose, and narrow by what a step has changed.
MYPY_TESTS := $(VENV)/bin/mypy --no-warn-unreachable --allow-untyped-calls --implicit-reexport \
  $(addprefix --disable-error-code ,arg-type comparison-overlap misc list-item)
SHIPPED := core/leyden $(wildcard plugins/*/leyden_* signers/*/leyden_*)

BENCHMARKS ?=
BENCH_ARGS ?=
PYTEST_ARGS ?=
FUZZ_ARGS ?=

.PHONY: help setup setup-docs setup-fuzz demo testbed test test-testbed check bench docs lint fast-test interop storm fuzz crash checklist clean

help: ## what there is (the default)
	@echo 'make demo      two nodes and a chain: open, pay, kill -9, close (CHAIN=bitcoind or electrum, DEMO_ARGS=...)'
	@echo 'make testbed   fetch the real counterparts that tests run against'
	@echo 'make test      the whole test suite (PYTEST_ARGS=...)'
	@echo 'make test-testbed  the plugins against their real counterparts'
	@echo 'make interop   every scenario with every real peer, and the table (INTEROP_ARGS="--peer lnd")'
	@echo 'make check     linters, types, layers and a fast part of the tests'
	@echo 'make docs      the documentation, warnings are errors: docs/_build/html/index.html'
	@echo 'make bench     benchmarks, quick run (BENCHMARKS="curve store ...", BENCH_ARGS=--again)'
	@echo 'make fuzz      every decoder against bytes that nobody meant (FUZZ_SECONDS=120, FUZZ_ARGS=...)'
	@echo 'make crash     the crash test at every point (SEED=..., CRASH_ARGS=--quick)'
	@echo 'make storm     500 reorgs over a real bitcoind, with restarts and payments (STORM_ARGS=--quick)'
	@echo 'make checklist which lines of the specification a test proves'
	@echo 'make setup     only make .venv and install everything into it'
	@echo 'make clean     remove .venv, caches and built docs'

# The first interpreter that fits; PYTHON=... has the last word.
$(PY):
	@for candidate in $${PYTHON:-$(PYTHON)} python3 python3.13 python3.12 python3.11; do \
	  if "$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then \
	    echo "making $(VENV) with $$("$$candidate" --version)"; \
	    "$$candidate" -m venv --clear $(VENV) || \
	      { echo "python -m venv failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }; \
	    exit 0; \
	  fi; \
	done; \
	echo "No Python 3.11, 3.12 or 3.13 found. Install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1

$(VENV)/.installed: $(PYPROJECTS) | $(PY)
	$(INSTALL) $(EDITABLE) -e '.[demo,dev]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(INSTALL) -e '.[docs]'
	@touch $@

# atheris has wheels for some platforms only; without it the search is blind.
$(VENV)/.installed-fuzz: $(VENV)/.installed
	$(PIP) install --quiet --only-binary atheris -e '.[fuzz]' || echo 'no atheris here: mutations without coverage'
	@touch $@

setup: $(VENV)/.installed
setup-docs: $(VENV)/.installed-docs
setup-fuzz: $(VENV)/.installed-fuzz

CHAIN ?= regtest
demo: setup ## two nodes, one channel, real payments (CHAIN=bitcoind, electrum: on real servers)
ifeq ($(CHAIN),electrum)
	LEYDEN_BITCOIND="$${LEYDEN_BITCOIND:-$$($(PY) -m tests.testbed bitcoind)}" \
	  LEYDEN_ELECTRUM_SERVER="$${LEYDEN_ELECTRUM_SERVER:-$$($(PY) -m tests.testbed electrum-server)}" \
	  $(VENV)/bin/leyden demo --chain electrum $(DEMO_ARGS)
else ifeq ($(CHAIN),bitcoind)
	LEYDEN_BITCOIND="$${LEYDEN_BITCOIND:-$$($(PY) -m tests.testbed bitcoind)}" \
	  $(VENV)/bin/leyden demo --chain bitcoind $(DEMO_ARGS)
else
	$(VENV)/bin/leyden demo --chain $(CHAIN) $(DEMO_ARGS)
endif

testbed: setup ## fetch the real counterparts of the tests (bitcoind; no root needed)
	$(PY) -m tests.testbed

test: setup ## everything
	$(PY) -m pytest -n $(JOBS) -m 'not testbed and not interop' --require-kernel-verdicts $(PYTEST_ARGS)

# Fetched before the first test, whose time is limited; what cannot be had skips, and in CI fails, with its reason.
test-testbed: setup ## the plugins against their real counterparts
	-@$(PY) -m tests.testbed bitcoind electrum-server electrum-server-2 >/dev/null
	$(PY) -m pytest -m 'testbed and not interop' $(PYTEST_ARGS)

storm: setup ## hundreds of reorgs and restarts with payments running, then the count (STORM_ARGS=--quick)
	$(PY) -m tests.storm $(STORM_ARGS)

interop: setup ## every scenario with every real peer, then the table
	$(PY) -m tests.interop $(INTEROP_ARGS)

lint: setup-docs
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy $(SHIPPED)
	MYPYPATH=tests/unit $(MYPY_TESTS) --exclude '^tests/vectors/' tests benchmarks docs
	MYPYPATH=tests/vectors $(MYPY_TESTS) tests/vectors
	$(VENV)/bin/lint-imports

fast-test: setup
	$(PY) -m pytest -q -n $(JOBS) -m 'not slow and not testbed and not interop' --require-kernel-verdicts tests/vectors tests/unit tests/records

check: lint fast-test ## what to run before every commit

docs: setup-docs ## Sphinx, warnings are errors
	$(PY) -m sphinx -W --keep-going -q -j auto -b html -d docs/_build/doctrees docs docs/_build/html
	@echo 'docs: docs/_build/html/index.html'

bench: setup
	benchmarks/setup || echo 'some peers are missing; their comparisons are skipped'
	$(PY) -m benchmarks --quick $(BENCH_ARGS) $(BENCHMARKS)

FUZZ_SECONDS ?= 120
fuzz: setup-fuzz ## every decoder
	$(PY) -m tests.fuzz --seconds $(FUZZ_SECONDS) --jobs $(JOBS) $(FUZZ_ARGS)

SEED ?= 1
crash: setup
	$(PY) -m leyden.testing.crash --seed $(SEED) $(CRASH_ARGS)

checklist: setup
	$(PY) -m leyden.testing.checklist

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis docs/_build
