# Each target makes what it needs. Nothing but Python 3.11 or 3.12 and make has to be there.
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
PY := $(VENV)/bin/python
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true
export OMP_WAIT_POLICY := PASSIVE

.DEFAULT_GOAL := help
.PHONY: help install install-dev demo up down test test-races lint types check bench bench-gate bench-drift bench-guard bench-harm bench-blind bench-replay bench-features bench-history bench-volume chaos-small page lock clean

help:  ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed  ## create .venv with what the bundle runs on, byte-compiled
install-dev: $(VENV)/.installed-dev  ## the same, with what tests, lint and types need

demo: $(VENV)/.installed  ## replay ten weeks of real flights through a real Airflow, print the scoreboard
	@$(PY) -W ignore -m include.demo run

up: $(VENV)/.installed  ## start the Airflow and MLflow pages on the demo's state; PORT=, MLFLOW_PORT= choose theirs
	@$(PY) -W ignore -m include.demo up $(if $(PORT),--port $(PORT)) $(if $(MLFLOW_PORT),--mlflow-port $(MLFLOW_PORT))

down: $(VENV)/.installed  ## stop them
	@$(PY) -W ignore -m include.demo down

test: $(VENV)/.installed-dev  ## run all tests
	$(PY) -m pytest

test-races: $(VENV)/.installed-dev  ## every two things at once, in fifty orders each
	RACE_SEEDS=50 $(PY) -m pytest tests/concurrency --dist load

lint: $(VENV)/.installed-dev  ## ruff, which wing imports which, and every model file
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	PYTHONPATH=. $(VENV)/bin/lint-imports --no-logo --cache-dir .ruff_cache/imports
	$(PY) -m include.retraining lint

types: $(VENV)/.installed-dev  ## mypy
	$(VENV)/bin/mypy

check: lint types test  ## everything that CI runs

bench: $(VENV)/.installed-dev  ## speed of parsing and of the pipeline, as ratios from one run
	$(PY) -W ignore -m benchmarks.pipeline

bench-drift: $(VENV)/.installed-dev  ## exactness, speed and detection quality of the drift check
	$(PY) -W ignore -m benchmarks.drift --peers

bench-replay: $(VENV)/.installed-dev  ## when to retrain: policies over the past of the example models
	$(PY) -W ignore -m benchmarks.replay

bench-gate: $(VENV)/.installed-dev  ## how often the gate decides right about candidates of known quality
	$(PY) -W ignore -m benchmarks.gate

bench-blind: $(VENV)/.installed-dev  ## are gross errors seen whatever windows are like, and is it quiet otherwise
	$(PY) -W ignore -m benchmarks.blind

bench-harm: $(VENV)/.installed-dev  ## how often harm is told wrongly, and how soon rightly
	$(PY) -W ignore -m benchmarks.harm

bench-guard: $(VENV)/.installed-dev  ## how often a good champion is rolled back, and how soon a bad one
	$(PY) -W ignore -m benchmarks.guard

bench-history: $(VENV)/.installed-dev  ## what a batch costs after 20, 400 and 2,000 others
	$(PY) -W ignore -m benchmarks.history

bench-volume: $(VENV)/.installed-dev  ## memory and CPU of large batches, disk after a year
	$(PY) -W ignore -m benchmarks.volume

chaos-small: $(VENV)/.installed-dev  ## kill each task and each part of Airflow once, compare with an undisturbed walk
	$(PY) -W ignore -m benchmarks.chaos

bench-features: $(VENV)/.installed-dev  ## speed of the point-in-time join
	$(PY) -W ignore -m benchmarks.features

page:  ## build the page Models from ui/ (needs Node 20 or newer; users need none)
	cd ui && npm ci --no-audit --no-fund && npm run build

lock: $(VENV)/.created  ## resolve requirements*.in into the pinned requirements*.txt
	$(VENV)/bin/uv pip compile -q --universal --python-version 3.11 --no-header --no-annotate --upgrade requirements.in -o requirements.txt
	$(VENV)/bin/uv pip compile -q --universal --python-version 3.11 --no-header --no-annotate --upgrade requirements-dev.in -o requirements-dev.txt

clean: down  ## remove all state of the demo
	rm -rf var

$(VENV)/.created:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or 3.12 found; say where one is with make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q --disable-pip-version-check uv
	@touch $@

# Byte-compiled at once: otherwise every Airflow process would compile a thousand modules again.
$(VENV)/.installed: $(VENV)/.created requirements.txt
	VIRTUAL_ENV=$(VENV) $(VENV)/bin/uv pip install -q --compile-bytecode -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	VIRTUAL_ENV=$(VENV) $(VENV)/bin/uv pip install -q --compile-bytecode -r requirements-dev.txt
	@touch $@
