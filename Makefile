# Two commands for a new machine: `make demo` and `make test`. Both set up what they need, once.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help setup demo test test-slow test-cuda bench chaos sbom docs clean

help: ## Say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/.ready ## Make the virtual environment (a sourced ROS 2 is used where it has rclpy)

$(VENV)/.ready: setup.py constraints.txt scripts/setup.sh
	@PYTHON=$(PYTHON) VENV=$(VENV) scripts/setup.sh

demo: setup ## Set up and run the main job: day drive, night, queries, a round, the gate, the swap
	$(BIN)/ssada demo --out out/demo

test: setup ## Set up and run lint, types and every quick test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
ifdef PYTEST
	$(BIN)/python -m pytest -m "not slow" $(PYTEST)
else
	@# Units and nodes side by side; what runs processes and browsers has the machine to itself.
	$(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses 4 --dist loadfile test/unit test/node
	$(BIN)/python -m pytest -m "not slow" --ignore test/unit --ignore test/node
endif

test-slow: setup ## The tests that take minutes
	$(BIN)/python -m pytest -m slow $(PYTEST)

test-cuda: setup ## The tests that need an NVIDIA GPU
	$(BIN)/python -m pytest -m cuda $(PYTEST)

chaos: setup ## The real system under a seeded storm of faults: make chaos MINUTES=30 SEED=7
	$(BIN)/python test/chaos/chaos.py --minutes $(or $(MINUTES),2) $(if $(SEED),--seed $(SEED)) $(CHAOS)

bench: setup ## Measure engines, node, swaps and annotation page on this machine; figures in out/bench
	mkdir -p out/bench
	$(BIN)/ssada bench inference --model $(or $(MODEL),sim-day) --json out/bench/inference.json
	$(BIN)/ssada bench node --model $(or $(MODEL),sim-day) --json out/bench/node.json
	$(BIN)/ssada bench node --transport --model $(or $(MODEL),sim-day) --json out/bench/transport.json
	$(BIN)/ssada bench swap --model $(or $(MODEL),sim-day) --json out/bench/swap.json
	$(BIN)/ssada bench page --json out/bench/page.json

docs: setup ## Write what follows from the code again: config/ssada.yaml, schemas, README's tables
	$(BIN)/python scripts/generate.py

sbom: setup ## Software bill of materials of the environment (CycloneDX): out/sbom.json
	@test -x $(VENV)-sbom/bin/cyclonedx-py || { $(PYTHON) -m venv $(VENV)-sbom && $(VENV)-sbom/bin/pip install --quiet cyclonedx-bom==7.5.0; }
	@mkdir -p out
	$(VENV)-sbom/bin/cyclonedx-py environment --output-reproducible --output-format JSON --output-file out/sbom.json $(BIN)/python

clean: ## Remove the virtual environment and what runs left behind
	rm -rf $(VENV) $(VENV)-sbom out build install log
