# Every target sets up $(VENV) on first use; see tools/setup_venv.sh.
#   VENV      where it goes                      (.venv)
#   PYTHON    the Python 3.11 to build on        (found by itself)
#   PARALLEL  how `make test` shares the work; empty: in one process
#   PAPERS    what `make reproduce` runs         (what takes an hour or so)
#   SEEDS     repetitions of each                (1)

VENV ?= .venv
# A file's tests stay in one process: they share what its fixtures made.
PARALLEL ?= --numprocesses=2 --dist=loadfile
SEEDS ?= 1
PAPERS ?= tff_dp_tutorial andrew_2021_clipping mcmahan_2017_2nn \
  silos_heart_disease silos_har silos_mnist fedprox_2020 dp_sgd_tfp
RUN = $(VENV)/bin/python -m
COMPILE = uv pip compile --quiet --generate-hashes --no-annotate $(UPGRADE) \
  --python-version 3.11 --python-platform x86_64-manylinux_2_31 \
  --custom-compile-command 'make lock'

.DEFAULT_GOAL := help
.PHONY: help venv quickstart reproduce test test-slow lint format doctor lock

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' \
	  Makefile

venv: ## Install requirements.lock into .venv, unless it is there.
	@sh tools/setup_venv.sh '$(VENV)'

quickstart: venv ## Train a private federated model; results in runs/quickstart.
	$(RUN) experiments.train --experiment=quickstart \
	  --output_dir=runs/quickstart

reproduce: venv ## Run the papers that take about an hour; finished runs are kept.
	@for paper in $(PAPERS); do \
	  $(RUN) experiments.sweep --experiment=$$paper --seeds=$(SEEDS) \
	    --output_dir=runs/papers/$$paper || failed="$$failed $$paper"; \
	done; \
	$(RUN) experiments.reproductions runs/papers; \
	test -z "$$failed" || { echo "reproduce: failed:$$failed" >&2; exit 1; }

test: lint ## Lint, then run all tests but the slow ones.
	$(RUN) pytest -m 'not slow' $(PARALLEL)

test-slow: venv ## Run the slow tests.
	$(RUN) pytest -m slow

lint: venv ## Check lint rules and formatting.
	$(RUN) ruff check
	$(RUN) ruff format --check

format: venv ## Format the code and mend what the linter can.
	$(RUN) ruff check --fix
	$(RUN) ruff format

doctor: venv ## Check this machine and the installation.
	@$(RUN) experiments.doctor

# Keeps the pins that still fit; `make lock UPGRADE=--upgrade` renews them.
lock: ## Resolve pyproject.toml into requirements.lock (needs uv).
	@command -v uv >/dev/null || { \
	  echo 'lock: uv is needed: python3 -m pip install uv' >&2; exit 1; }
	$(COMPILE) --extra dev pyproject.toml --output-file requirements.lock
	echo 'pip setuptools wheel' | tr ' ' '\n' | $(COMPILE) - \
	  --constraint requirements.lock --output-file requirements-build.lock
