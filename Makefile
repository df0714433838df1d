# edge-wam. `make demo` and `make test` set up everything that they need; nothing else has to be run first.
# Stamps keep the second run quick: pip and apt are called only when pyproject.toml or packages.txt changed.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
PYTEST_FLAGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := PYTHONWARNINGS=ignore $(BIN)/python -m pip --disable-pip-version-check --no-input install --quiet --quiet
KERNEL_SOURCES := setup.py $(wildcard kernels/*/*)

.PHONY: help demo test test-can test-lerobot check proof setup setup-test kernels clean

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: setup ## set everything up, then let the simulated arm do its task
	$(BIN)/edge-wam demo

test: setup-test check ## set everything up, then run every check and every test
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

test-can: setup-test ## true SocketCAN in a small virtual machine (downloads a kernel, takes minutes; not part of test)
	$(BIN)/python -m firmware_bridge.mcu.build lib mps2-an386-realtime
	$(BIN)/python -m tests.can.microvm

test-lerobot: setup-test ## datasets against LeRobot's own reader and writer (two environments of 0.4 GB; not part of test)
	$(BIN)/python -m tests.lerobot_reader

check: setup-test ## lint, types, import rules, dead code, spelling, generated files
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/vulture
	$(BIN)/codespell
	$(BIN)/python -m firmware_bridge.protocol.generate --check

proof: setup-test ## prove the properties of the firmware's core (minutes; fetches CBMC once)
	$(BIN)/python -m tests.proof.prove --resume --write

setup: build/stamps/packages $(VENV)/stamps/sim build/stamps/kernels ## what the demo needs
setup-test: build/stamps/packages $(VENV)/stamps/test build/stamps/kernels ## what the tests need

kernels: build/stamps/kernels ## the compiled kernels, in place

clean: ## remove what was built (not .venv)
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -f edge_wam/kernels/*.so edge_wam/kernels/*.fatbin firmware_bridge/host/*.so
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# Debian packages. Neither root nor password-less sudo: say what is missing and go on with what works.
build/stamps/packages: packages.txt
	@mkdir -p $(@D)
	@if ! command -v dpkg-query >/dev/null; then echo "no dpkg here: see packages.txt for what is needed"; exit 0; fi; \
	missing=$$(sed 's/#.*//' packages.txt | xargs -n1 | while read -r name; do \
	  dpkg-query -W -f '$${Status}' "$$name" 2>/dev/null | grep -q 'ok installed' || echo "$$name"; done | xargs); \
	if [ -z "$$missing" ]; then touch $@; exit 0; fi; \
	if [ "$$(id -u)" = 0 ]; then as_root=env; elif sudo -n true 2>/dev/null; then as_root="sudo env"; else \
	  echo "Some Debian packages are missing. Going on without them; to install them, run:"; \
	  echo "  sudo apt-get install --no-install-recommends $$missing"; exit 0; fi; \
	echo "==> apt-get install $$missing"; \
	if $$as_root DEBIAN_FRONTEND=noninteractive apt-get -qq update && \
	   $$as_root DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $$missing >/dev/null; \
	then touch $@; else echo "apt-get failed; going on without: $$missing"; fi

$(VENV)/stamps/venv: | build/stamps/packages
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python {v[0]}.{v[1]} found; edge-wam needs 3.11, 3.12 or 3.13: make PYTHON=/path/to/python3.11 ...")'
	@echo "==> $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@mkdir -p $(@D) && touch $@

# What building the extensions needs is written once, in pyproject.toml.
$(VENV)/stamps/build: pyproject.toml $(VENV)/stamps/venv
	@$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' > $(VENV)/stamps/build.txt
	@$(PIP) -r $(VENV)/stamps/build.txt
	@touch $@

$(VENV)/stamps/sim: $(VENV)/stamps/build
	@echo "==> Python packages for the runtime and the simulator (the first time takes minutes)"
	@$(PIP) --no-build-isolation --editable '.[sim]'
	@touch $@

$(VENV)/stamps/test: $(VENV)/stamps/build
	@echo "==> Python packages for the tests: PyTorch and the tools (the first time takes minutes)"
	@$(PIP) --no-build-isolation --editable '.[sim,distill,dev]'
	@touch $@ $(VENV)/stamps/sim

build/stamps/kernels: $(KERNEL_SOURCES) $(VENV)/stamps/build
	@mkdir -p $(@D)
	@echo "==> kernels"
	@$(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@
