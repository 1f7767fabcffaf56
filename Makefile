# `make help` lists the targets. Every target that runs something first brings .venv up to date.
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast compat lint types format hooks bench clean

BIN := .venv/bin
# Files of tests at a time. Most of the slow ones are two processes themselves, but often wait.
WORKERS ?= 2
# Of the fast ones, many wait for a process that they have started.
FAST_WORKERS ?= 3
PYTEST := $(BIN)/python -m pytest --dist loadfile
FAST := not ranks and not slurm and not e2e and not gpu
MAKEFLAGS += --no-print-directory

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## make .venv from containers/cpu.lock (nothing to do: nothing done)
	@containers/setup.sh

demo: setup ## train the tiny model by ProRL v2 on this machine's CPU, into runs/demo
	@$(BIN)/megatron-rl train prorl_v2 --scale cpu --directory runs/demo

test: setup ## all tests, the fast ones first; half an hour on two cores
	@echo "all tests: half an hour on two cores (make test-fast: two minutes)"
	$(PYTEST) -n $(FAST_WORKERS) -m "$(FAST)"
	$(PYTEST) -n $(WORKERS) -m "not ($(FAST))" --durations=10

test-fast: setup ## the tests that need one process and no engine
	$(PYTEST) -n $(FAST_WORKERS) -m "$(FAST)"

compat: ## the tests that need no engine, on the cluster's versions of cuda.lock (Python 3.12, 8 GB)
	@WORKERS=$(WORKERS) containers/compat.sh

lint: setup ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## mypy, as pyproject.toml says
	$(BIN)/mypy

format: setup ## let ruff rewrite the files
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

hooks: setup ## run ruff and mypy before each commit
	$(BIN)/pre-commit install

bench: setup ## speed of the loop's parts, of the verifiers and of checkpoints, then learning on three seeds; JSON lines
	$(BIN)/python benchmarks/loop.py
	$(BIN)/python benchmarks/rollout.py
	$(BIN)/python benchmarks/refit.py
	$(BIN)/python benchmarks/verifiers.py
	$(BIN)/python benchmarks/checkpoint.py
	$(BIN)/python benchmarks/learning.py --seeds 3

clean: ## remove .venv, caches and runs/demo
	rm -f .venv/*.stamp
	rm -rf .venv .venv-compat .pytest_cache .mypy_cache .ruff_cache build megatron_rl.egg-info runs/demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
