# The three things a newcomer does: make install, make bench, make test.
VENV ?= .venv
PYTHON ?= python3
# GPU packages where an NVIDIA driver is there; DEVICE=cpu or DEVICE=gpu decides it by hand.
DEVICE ?= $(if $(wildcard /dev/nvidiactl /proc/driver/nvidia/version /dev/dxg),gpu,cpu)
# Paddle's GPU wheels from 3.0 on are on its own index only (docs/gpu.md).
PADDLE_GPU := paddlepaddle-gpu==3.3.1
PADDLE_GPU_INDEX := https://www.paddlepaddle.org.cn/packages/stable/cu126/
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed-$(DEVICE)

.PHONY: install bench test soak lint docs lock

install: $(INSTALLED)

# The lock has a hash for every package; -I keeps the folder the interpreter runs from out of pip's sight.
$(INSTALLED): requirements/$(DEVICE).txt Makefile
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -I -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/$(DEVICE).txt
ifeq ($(DEVICE),gpu)
	$(BIN)/python -I -m pip install --quiet --disable-pip-version-check --index-url $(PADDLE_GPU_INDEX) $(PADDLE_GPU)
endif
	touch $@

# The main job on built-in data: throughput on photographs, then a training to a real top-1 on digits.
bench: install
	$(BIN)/python run_bench.py --throughput-only
	$(BIN)/python run_bench.py --data digits --model x0_25 --image-size 64 --batch-size 32 --epochs 60

test: install
	$(BIN)/python -m pytest

# What takes too long for a test: kills, growth over 20,000 steps, a run of 360 epochs concluded. About a quarter of an hour.
soak: install
	$(BIN)/python -m benchmarks.kills
	$(BIN)/python -m benchmarks.soak
	$(BIN)/python -m benchmarks.long_run

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# README's options and docs/tables.md, from their declarations.
docs: install
	$(BIN)/python -m harness.report.docs

# One lock per device, for every supported Python; paddlepaddle-gpu is left out, as the index doesn't have it.
LOCK = uv pip compile pyproject.toml --universal --python-version 3.10 --extra cpu --extra dev \
	--generate-hashes --no-header --no-emit-index-url --no-emit-find-links --quiet
lock:
	$(LOCK) --output-file requirements/cpu.txt
	$(LOCK) --no-emit-package paddlepaddle --output-file requirements/gpu.txt
