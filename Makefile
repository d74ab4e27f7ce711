# Each verb does what it says; CI calls the same ones. `make demo` and `make test` need nothing but Python 3.11 or 3.12.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODEL := smollm2-135m-instruct
SOURCES := headrace gateway workers engine kernels tests examples benchmarks docs

.PHONY: need-redis help install lint format type test chaos invariance wake bench bench-delivery bench-cpu bench-gpu kernels demo up docs clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       documents in, answers out, on an embedded default"
	@echo "make up         the whole stack in the foreground"
	@echo "make test       the tests            make lint type   the rest of what CI runs"
	@echo "make chaos      every process killed at every point, Redis in every trouble: the long form"
	@echo "make invariance any schedule, same tokens: 1,000 random ones, and some on the real model"
	@echo "make wake       ten bursts on a fleet that sleeps: first token and back to zero, in time"
	@echo "make bench-cpu  against OpenVINO, llama.cpp, vLLM, transformers in environments of their own (6 GB, hours)"
	@echo "make bench-delivery recovery, submit, hand-off, streams, fairness, journal, against their bars"
	@echo "make bench-gpu  on an NVIDIA GPU: its kernels checked, identity proved, speeds against bars, ten minutes"
	@echo "make kernels    the GPU's kernels compiled for sm_80 and sm_90, without one"
	@echo "make bench      measurements         make docs        writes docs/03-reference.md from the code"

# Asked before anything is installed: the packages that carry a Redis have no wheels for Python 3.13 and later.
need-redis:
	@$(PYTHON) -c 'import shutil, sys; sys.exit(sys.version_info >= (3, 13) and not any(map(shutil.which, ("redis-server", "valkey-server"))))' || \
		{ echo "On Python 3.13 and later put redis-server or valkey-server on the PATH, or: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }

# torch first and by itself: any open range, asked for here or by a dependency, takes several GB of CUDA packages.
$(VENV)/.run: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Headrace needs Python 3.11 or later; try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): a minute or two, about 900 MB."
	$(BIN)/python -m pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[gateway,worker,embedded]"
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[gateway,worker,embedded,hf,s3,otel,console,ledger,dev]"
	@touch $@

install: $(VENV)/.dev

lint: $(VENV)/.dev
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

type: $(VENV)/.dev
	$(BIN)/mypy

test: $(VENV)/.dev
	$(BIN)/headrace models pull $(MODEL)
	$(BIN)/python -m pytest -n 2

chaos: need-redis $(VENV)/.dev
	$(BIN)/headrace models pull $(MODEL)
	$(BIN)/python -m tests.chaos.points --seeds 50 --output benchmarks/results
	$(BIN)/python -m tests.chaos.points --real --seeds 5 --output benchmarks/results
	$(BIN)/python -m tests.chaos.faults.run --seeds 5
	$(BIN)/python -m tests.chaos.kill --rounds 10
	$(BIN)/python -m tests.chaos.poison --seeds 10
	$(BIN)/python -m tests.chaos.supervisor
	$(BIN)/python -m tests.integration.gateway.gateway_deaths --rounds 50
	$(BIN)/python -m tests.integration.workers.held --hold 33 --lease 10
	$(BIN)/python -m tests.stateful --examples 500

invariance: $(VENV)/.dev
	$(BIN)/headrace models pull $(MODEL)
	$(BIN)/python -m tests.unit.engine.any_schedule --schedules 1000
	$(BIN)/python -m tests.unit.engine.any_schedule --schedules 20 --page-sizes 16 \
		--model "$$($(BIN)/headrace models path $(MODEL))"
	$(BIN)/python -m tests.unit.engine.cuda_backend.run_ahead --schedules 100
	$(BIN)/python -m tests.unit.engine.sampler_twins --rows 1000000
	$(BIN)/python -m tests.parity.real

wake: need-redis $(VENV)/.dev
	$(BIN)/headrace models pull $(MODEL)
	$(BIN)/python -m tests.e2e.wake --bursts 10 --model $(MODEL)

docs: $(VENV)/.dev
	$(BIN)/python docs/generate.py

bench: $(VENV)/.dev
	$(BIN)/headrace models pull $(MODEL)
	$(BIN)/python -m benchmarks.engine

bench-cpu: need-redis $(VENV)/.dev
	$(BIN)/headrace models pull $(MODEL)
	$(BIN)/python -m benchmarks.cpu
	$(BIN)/python -m benchmarks.cpu --numerics
	$(BIN)/python -m benchmarks.shared_prefix
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.engine
	$(BIN)/python -m benchmarks.fleet
	$(BIN)/python -m benchmarks.perplexity --backend cpu
	$(BIN)/python -m benchmarks.table --tables cpu --update README.md
	$(BIN)/python -m benchmarks.table --update benchmarks/README.md

bench-delivery: need-redis $(VENV)/.dev
	$(BIN)/headrace models pull $(MODEL)
	$(BIN)/python -m benchmarks.recovery
	$(BIN)/python -m benchmarks.recovery --real
	$(BIN)/python -m benchmarks.cancel
	$(BIN)/python -m benchmarks.cancel --real
	$(BIN)/python -m benchmarks.submit
	$(BIN)/python -m benchmarks.handoff
	$(BIN)/python -m benchmarks.streams
	$(BIN)/python -m benchmarks.noisy
	$(BIN)/python -m benchmarks.claims
	$(BIN)/python -m benchmarks.journal
	$(BIN)/python -m benchmarks.table --tables delivery --update README.md --mark delivery
	$(BIN)/python -m benchmarks.table --update benchmarks/README.md

bench-gpu: $(VENV)/.dev
	$(BIN)/python -m benchmarks.gpu

kernels: $(VENV)/.dev
	$(BIN)/python -m tests.unit.kernels.gpu.compiled 80 90
	$(BIN)/python -m tests.unit.kernels.gpu.compile_offline 80 90
	$(BIN)/python -m tests.unit.engine.cuda_backend.compiled_steps 80 90

demo: need-redis $(VENV)/.run
	@$(BIN)/headrace up --workers 2 --data-dir demo-output/data --port 0 -- $(BIN)/python examples/readmes.py --output demo-output

up: need-redis $(VENV)/.run
	@$(BIN)/headrace up

clean:
	rm -rf $(VENV) demo-output .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
