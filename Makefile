# Everything that a fresh machine needs: `make tune` answers the first question, `make test` proves the code.

PYTHON ?= python3
EXPERIMENT ?= experiments/gpt-oss-120b-b200-chat.yaml
BIN := .venv/bin
INSTALLED := .venv/installed
DEVELOPED := .venv/installed-dev
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
ENGINES := .venv-vllm
OLDER := 0.31.0

.PHONY: tune test engines check docs benchmarks clean

## Find the cheapest way to answer $(EXPERIMENT), on simulated hardware.
tune: $(INSTALLED)
	$(BIN)/servetune tune $(EXPERIMENT)

## Run the tests. Those that drive a browser need Chromium, those of `make engines` a vLLM of their own.
test: $(DEVELOPED)
	$(BIN)/python -m pytest -n 2 -m "not engine"

## Install two releases of vLLM for CPUs (2.5 GB each, mostly the same files) and run the tests that serve with them.
engines: $(ENGINES)/installed $(ENGINES)-$(OLDER)/installed
	SERVETUNE_REQUIRE_ENGINES=1 SERVETUNE_VLLM_PYTHON=$(CURDIR)/$(ENGINES)/bin/python \
		$(BIN)/python -m pytest -m engine

## Run the linters, the type checker and the architecture's contract.
check: $(DEVELOPED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

## Write the pages of docs/reference/ again, after a change to a command or to the experiment's keys.
docs: $(DEVELOPED)
	$(BIN)/python -m tuner.scenario.experiment.schema > experiments/experiment.schema.json
	$(BIN)/python tests/test_docs.py

## Reproduce the figures of the documentation (an hour).
benchmarks: $(DEVELOPED)
	$(BIN)/python benchmarks/first_light.py
	$(BIN)/python benchmarks/simulation_speed.py
	$(BIN)/python benchmarks/storage.py
	$(BIN)/python benchmarks/tracking.py
	$(BIN)/python benchmarks/regret.py
	$(BIN)/python benchmarks/verdict.py
	$(BIN)/python benchmarks/retune.py --quick
	$(BIN)/python benchmarks/report.py
	$(BIN)/python benchmarks/early_stops.py
	$(BIN)/python benchmarks/load_accuracy.py
	$(BIN)/python benchmarks/serving_overhead.py

# What tuning needs. Bytecode of what is imported is written when it is first imported: compiling all takes as long again.
$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv .venv
	$(PIP) --no-compile --editable .
	touch $@

# What the tests, the linters and the type checker need besides, in the same environment.
$(DEVELOPED): $(INSTALLED)
	$(PIP) --no-compile --editable '.[dev]'
	touch $@

$(ENGINES)/installed: $(DEVELOPED) tests/engines/install.sh tests/engines/requirements.txt tests/engines/overrides.txt
	$(PIP) uv
	tests/engines/install.sh $(ENGINES) $(CURDIR)/$(BIN)/uv $(CURDIR)/$(BIN)/python
	touch $@

$(ENGINES)-$(OLDER)/installed: $(ENGINES)/installed
	tests/engines/install.sh $(ENGINES)-$(OLDER) $(CURDIR)/$(BIN)/uv $(CURDIR)/$(BIN)/python $(OLDER)
	touch $@

clean:
	rm -rf .venv $(ENGINES) $(ENGINES)-$(OLDER) build dist
