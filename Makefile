# Everything runs in .venv, made on first use and again when pyproject.toml or constraints.txt change.

PYTHON ?= python3
PYTHON312 ?= python3.12
BIN := .venv/bin
UV := $(shell command -v uv 2>/dev/null)

ifdef UV
CREATE = uv venv -q --allow-existing --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" .venv
INSTALL = uv pip install -q --python $(BIN)/python -c constraints.txt
else
CREATE = $(PYTHON) -m venv .venv
INSTALL = $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt
endif

.PHONY: help demo test lint docs toy gaia ultracool bench clean
.DEFAULT_GOAL := help

help:  ## say what there is to make
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' $(firstword $(MAKEFILE_LIST))

demo: .venv/.dev  ## fit and score the toy survey; pictures and a report in ./demo
	$(BIN)/robusta-prob demo -o demo
	$(BIN)/robusta-prob report demo

test: .venv/.dev  ## run the tests
	$(BIN)/python -m pytest

lint: .venv/.dev  ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/.dev  ## make docs/api.md anew, from the docstrings
	$(BIN)/python docs/make_api.py

toy: .venv/.bench .venv-robusta-hmf/.done  ## the published experiment, with pictures, in ./toy_run (half an hour)
	$(BIN)/python -m examples.toy toy_run

gaia: .venv/.dev  ## search a small simulated Gaia RVS survey for strange stars, in ./gaia_run (five minutes)
	$(BIN)/python -m examples.gaia_rvs run --simulate small -o gaia_run

DATA ?= ../shared/data/spex_prism.npz
ultracool: .venv/.dev .venv-robusta-hmf/.done  ## robust and other bases of real spectra, in ./ultracool_run (two hours); simulated ones where DATA=... is not there
	$(BIN)/python -m examples.ultracool run $(if $(wildcard $(DATA)),--data $(DATA),--simulate full) -o ultracool_run

bench: .venv/.bench .venv-robusta-hmf/.done  ## run the benchmarks
	$(BIN)/python benchmarks/run.py

clean:  ## remove what was made, but for .venv
	rm -rf demo build dist .pytest_cache .mypy_cache .ruff_cache
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +

.venv/.dev: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo 'robusta-prob needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ...' >&2; exit 1; }
	@echo 'Setting up .venv (a minute or two, once) ...'
	$(CREATE)
	$(INSTALL) -e '.[dev]'
	@touch $@

# robusta-hmf switches JAX to 64 bits for its whole process, so it gets an environment of its own.
.venv-robusta-hmf/.done:
	$(PYTHON) -m venv .venv-robusta-hmf
	.venv-robusta-hmf/bin/python -m pip install -q --disable-pip-version-check robusta-hmf==0.0.2
	@touch $@

# ArviZ 1.x needs Python 3.12: where this environment is, `make test` checks rp.to_arviz under it as well.
.venv-3.12/.done: pyproject.toml constraints.txt
	$(PYTHON312) -m venv .venv-3.12
	.venv-3.12/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

.venv/.bench: .venv/.dev
	$(INSTALL) -e '.[bench]'
	@touch $@
