# StreamGuard's errands. The first one makes .venv and installs everything into it.

BIN := .venv/bin
INSTALLED := .venv/.installed
WARM := .venv/.warm
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)

.PHONY: help demo test lint docs bench chaos soak

help:  ## say what can be made
	@echo "make TARGET [ARGS='...'] [PYTHON=python3.12]"
	@sed -n 's/^\([a-z]*\):.*## /  \1	/p' Makefile

demo: $(INSTALLED)  ## Kafka, a month of habits, live traffic with attacks, a worker, its incidents
	$(BIN)/streamguard demo $(ARGS)

test: $(INSTALLED) $(WARM)  ## every test, real Kafka included
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 20 $(ARGS)

lint: $(INSTALLED)  ## style, types and the arrows between packages
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED)  ## the documentation as a site, in site/; a broken link fails
	$(BIN)/mkdocs build --strict $(ARGS)

bench: $(INSTALLED) $(WARM)  ## the figures in the README
	$(BIN)/python -m bench $(ARGS)

chaos: $(INSTALLED)  ## kill -9, zombies and a dead broker, then the proof that nothing was lost
	$(BIN)/python -m bench.chaos $(ARGS)

MINUTES ?= 20
soak: $(INSTALLED) $(WARM)  ## a long run with attacks, retrains, swaps, kills and rebalances; MINUTES=n
	$(BIN)/python -m bench.soak --minutes $(MINUTES) $(ARGS)

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "StreamGuard needs Python 3.11, 3.12 or 3.13: install one, or name it with PYTHON=..." >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# Spark starts three seconds sooner with it, and starts without it.
$(WARM): $(INSTALLED)
	@$(BIN)/python -m streamguard.batch.engines.warm || true
	@touch $@
