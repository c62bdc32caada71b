# What one does with a checkout. `make` alone lists it.
#
#   PYTHON=python3.12 make setup       another interpreter (3.11 or newer)
#   make run ARGS='-c my.toml'         options for the program
#   make test ARGS='-k relay -x'       options for pytest

PYTHON  ?= python3
PREFIX  ?= /opt/optoutd
DESTDIR ?=
ARGS    ?=

BIN   := .venv/bin
STAMP := .venv/.complete

.DEFAULT_GOAL := help
.PHONY: help setup demo run test chaos check sbom audit fuzz bench pictures man train install deb

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## .venv with the program, its tests and its demo: .venv/bin/optoutd

# The stamp comes last, so that a set-up that broke off is done again.
$(STAMP): pyproject.toml constraints.txt
	@scripts/check-python '$(PYTHON)'
	'$(PYTHON)' -m venv .venv
	$(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt -e '.[dev,demo]'
	@touch $@

demo: $(STAMP) ## the whole story on free loopback ports, without a config; ARGS=--once ends after it
	@$(BIN)/optoutd demo $(ARGS)

run: $(STAMP) ## the daemon with ./optoutd.toml, or with ARGS='-c FILE'
	@$(BIN)/optoutd $(ARGS) run

test: $(STAMP) ## install what the tests need from Debian (as root), run them all, with branch coverage
	@scripts/apt-for-tests
	@$(BIN)/python -m pytest -n auto --dist worksteal --cov --cov-branch --cov-report=term $(ARGS)

chaos: $(STAMP) ## kill, stop, cut and damage everything under load for 20 minutes, and judge (docs/chaos.md)
	@scripts/apt-for-tests
	@$(BIN)/python -m tests.chaos $(ARGS)

check: $(STAMP) ## style, types, who may import whom, and what we stand on: pinned, complete, its licences known
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pip check
	@$(BIN)/python scripts/dependencies check
	@$(BIN)/python -m pytest -q tests/test_layers.py

sbom: $(STAMP) ## sbom.cdx.json: what we stand on, for other programs (CycloneDX)
	@$(BIN)/python scripts/dependencies sbom sbom.cdx.json

audit: ## ask the internet for known holes in what we stand on; what it cannot be asked about is a failure
	@test -x .venv/audit/bin/pip-audit || { '$(PYTHON)' -m venv .venv/audit && .venv/audit/bin/python -m pip install --quiet pip-audit; }
	@.venv/audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

fuzz: $(STAMP) ## hostile input for every door, a minute each; ARGS='smtp --seconds 600'
	@$(BIN)/python -m tests.fuzz $(ARGS)

bench: $(STAMP) ## measure lookups, enforcement, the relay, reading, memory, lists, pages and hooks on this machine
	@for script in lookup enforcement relay read soak storage web hooks; do $(BIN)/python bench/$$script.py $(ARGS) || exit; done

pictures: $(STAMP) ## take the pictures of docs/ anew
	@OPTOUTD_PICTURES=docs/images $(BIN)/python -m pytest -q tests/browser/test_pictures.py -k 'not docs_show'

man: $(STAMP) ## write the man pages anew, from the commands, the options and config.example.toml
	@$(BIN)/python scripts/manuals.py

train: $(STAMP) ## train the model that helps to read mail anew (training/README.md)
	$(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt -e '.[training]'
	@$(BIN)/python -m training.train $(ARGS)

install: ## a virtual environment in PREFIX, and the systemd unit; DESTDIR= for packagers
	@scripts/check-python '$(PYTHON)'
	@PYTHON='$(PYTHON)' scripts/install-prefix '$(PREFIX)' '$(DESTDIR)'

deb: ## a Debian package of this version in dist/, for this machine's Debian and architecture
	@scripts/build-deb dist
