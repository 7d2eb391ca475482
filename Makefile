# Works on a machine that has nothing but Python >= 3.11 and make; everything else goes into .venv.

.DEFAULT_GOAL := help
.PHONY: help install run test check unit e2e web soak bench fmt
MAKEFLAGS += --no-print-directory

VENV := .venv
PY := $(VENV)/bin/python
# What is formatted, linted and typed: every folder of Python that exists.
CODE := $(sort $(foreach d,service workers migrations tests,$(if $(shell find $(d) -name '*.py' 2>/dev/null | head -1),$(d))))
# `make test T=tests/unit/test_names.py` narrows.
T ?=

help:  ## this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  T=path narrows test, unit, e2e and fmt to one file or folder"

install: $(VENV)/.dev  ## everything for working on it; the command is then .venv/bin/waypost

run: $(VENV)/.run  ## the whole service on this machine: http://127.0.0.1:8000
	@$(PY) -m service up

test: check  ## all checks and all tests; what CI runs
	@$(PY) -m pytest $(if $(T),$(T),tests/unit tests/integration tests/e2e)
	@$(if $(T),,$(MAKE) web)

# The browser client, in Node. Nothing fails for lack of Node, npm or their registry: what is left out is said.
NODE_TESTS := tests/web

web: $(NODE_TESTS)/node_modules  ## the tests of the browser client, in Node >= 20
	@if ! node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null; then \
	    echo "there is no Node 20 or newer on the PATH; the tests of the browser client in Node are left out" >&2; \
	elif [ ! -d $(NODE_TESTS)/node_modules/ws ]; then \
	    echo "what the tests of the browser client in Node need is not installed; they are left out" >&2; \
	else cd $(NODE_TESTS) && npm test --silent; fi

check: $(VENV)/.dev  ## format, lint, types, imports, docs
	@$(PY) -m ruff format --check --quiet $(CODE) || { echo "mend: make fmt"; exit 1; }
	@$(PY) -m ruff check --quiet $(CODE)
	@$(PY) -m mypy $(CODE)
	@$(VENV)/bin/lint-imports --no-logo
	@$(PY) -m pytest -q tests/checks

unit: $(VENV)/.dev  ## the tests that need no server
	@$(PY) -m pytest $(if $(T),$(T),tests/unit)

e2e: $(VENV)/.dev  ## real processes, named after the promises
	@$(PY) -m pytest $(if $(T),$(T),tests/e2e)

# The same seed injects the same faults in the same order; what they hit is chance.
SEED ?= $(shell date +%s)
MINUTES ?= 10
PRODUCT ?= valkey

soak: $(VENV)/.dev  ## faults for MINUTES=10 from SEED=1 on PRODUCT=valkey|redis, and a verdict
	@$(PY) -m tests.soak --seed $(SEED) --minutes $(MINUTES) --product $(PRODUCT)

# B=retention: how long messages take beside a large run of retention. B=upkeep: how long steps of jobs hold the server.
B ?=
ARGS ?=
PEERS := tests/bench/peers

bench: $(VENV)/.dev $(if $(B),,$(VENV)/.bench $(PEERS)/node_modules)  ## beside its peers, < 5 min; ARGS=--help, B=retention|upkeep
	@$(PY) -m tests.bench$(if $(B),.$(B)) --product $(PRODUCT) $(ARGS)

fmt: $(VENV)/.dev  ## format and mend what can be mended
	@$(PY) -m ruff format $(if $(T),$(T),$(CODE))
	@$(PY) -m ruff check --fix-only $(if $(T),$(T),$(CODE))

# The stamps: made again when pyproject.toml changes. `.run` holds what the service needs, `.dev` the tools too.
$(VENV)/.run: pyproject.toml | $(PY)
	@echo "installing what the service needs into $(VENV) ..."
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(PY)
	@echo "installing what the service and its tests need into $(VENV) ..."
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(VENV)/.run $@

# What `make bench` compares with. Nothing fails for lack of it: what is not there is left out, and said.
$(VENV)/.bench: pyproject.toml | $(VENV)/.dev
	@echo "installing what it is compared with into $(VENV) ..."
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[dev,bench]' && touch $@ || \
	    echo "python-socketio and matplotlib could not be installed; going on without them" >&2

$(PEERS)/node_modules: $(PEERS)/package.json
	@if ! command -v npm >/dev/null; then echo "there is no npm on the PATH; going on without Socket.IO" >&2; exit 0; fi; \
	echo "installing Socket.IO into $@ ..."; \
	npm install --prefix $(PEERS) --no-fund --no-audit --no-package-lock --silent && touch $@ || \
	    echo "Socket.IO could not be installed; going on without it" >&2

$(NODE_TESTS)/node_modules: $(NODE_TESTS)/package.json
	@if ! command -v npm >/dev/null; then exit 0; fi; \
	echo "installing what the tests of the browser client need into $@ ..."; \
	npm install --prefix $(NODE_TESTS) --no-fund --no-audit --no-package-lock --silent && touch $@ || \
	    echo "what the tests of the browser client need could not be installed" >&2

# The first Python on the PATH that is new enough. One without venv is named, with what to install.
$(PY):
	@for name in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	    "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	    if ! "$$name" -c 'import ensurepip, venv' 2>/dev/null; then lacking=$$name; continue; fi; \
	    rm -rf $(VENV) && exec "$$name" -m venv $(VENV); \
	done; \
	if [ -n "$$lacking" ]; then \
	    echo "$$lacking comes without venv here: install it first (Debian, Ubuntu: apt-get install python3-venv)" >&2; \
	else \
	    echo "Waypost needs Python 3.11 or newer, and none is on the PATH" >&2; \
	fi; exit 1
