# The three things a newcomer does: make install, make bench, make test.
VENV ?= .venv
PYTHON ?= python3
# GPU packages where an NVIDIA driver is there; DEVICE=cpu or DEVICE=gpu decides it by hand.
DEVICE ?= $(if $(wildcard /dev/nvidiactl /proc/driver/nvidia/version /dev/dxg),gpu,cpu)
# Paddle's build for GPUs: cu126, cu129 or cu130; empty chooses it by what nvidia-smi reports (docs/devices.md).
WHEEL ?=
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed-$(DEVICE)$(WHEEL:%=-%)
# What builds the site of the documentation has an environment of its own.
SITE_VENV := .venv-site

# What is wrong with a Python, in one line, before anything is downloaded; it runs in whatever Python there is.
define CHECK_PYTHON
import sys
found = "Python %d.%d (%s)" % (sys.version_info[0], sys.version_info[1], sys.executable)
if not (3, 10) <= sys.version_info[:2] <= (3, 13):
    sys.exit("error: " + found + " is not supported; name one of 3.10 to 3.13: make install PYTHON=python3.12")
try:
    import ensurepip, venv
except ImportError:
    sys.exit("error: " + found + " lacks venv or ensurepip; install it (Debian, Ubuntu: apt install python3-venv)"
             " or name another Python: make install PYTHON=python3.12")
endef
export CHECK_PYTHON

.PHONY: install bench test benchmarks soak lint docs site lock

install: $(INSTALLED)

# The lock has a hash for every package; -I keeps the folder the interpreter runs from out of pip's sight.
$(INSTALLED): requirements/$(DEVICE).txt Makefile
	@command -v $(PYTHON) > /dev/null || { echo "error: there is no $(PYTHON) here;" \
		"install Python 3.10 to 3.13, or name it: make install PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c "$$CHECK_PYTHON"
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -I -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/$(DEVICE).txt
ifeq ($(DEVICE),gpu)
	$(BIN)/python -m harness.machine.gpu_fit.wheels --install $(WHEEL)
endif
	touch $(VENV)/installed-$(DEVICE) $@

# The main job on built-in data: throughput on photographs, then a training to a real top-1 on digits.
bench: install
	$(BIN)/python run_bench.py --throughput-only
	$(BIN)/python run_bench.py --data digits --model x0_25 --image-size 64 --batch-size 32 --epochs 15 --learning-rate 0.1
	$(BIN)/python run_bench.py report --last 2 --output results/bench.html

test: install
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# Everything side by side, for docs/performance.md: loaders alone, each feeding the same training, what recording and starting
# cost, a run of 360 epochs concluded, and lists of millions planned. Other programs disturb it.
benchmarks: install
	$(BIN)/python -m benchmarks.peers
	$(BIN)/python -m benchmarks.end_to_end
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.long_run
	$(BIN)/python -m benchmarks.large_lists

# What takes too long for a test: kills, signals, storage that goes away, growth over 20,000 steps, a run of 360 epochs concluded.
soak: install
	$(BIN)/python -m benchmarks.kills
	$(BIN)/python -m benchmarks.signals
	$(BIN)/python -m benchmarks.storage
	$(BIN)/python -m benchmarks.soak
	$(BIN)/python -m benchmarks.long_run

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# docs/options.md and docs/tables.md, from their declarations.
docs: install
	$(BIN)/python -m harness.report.docs

# The pages as a site in build/site, which needs no network; any warning, such as a broken link, is an error.
site: $(SITE_VENV)/installed
	rm -rf build/site
	$(SITE_VENV)/bin/python -m sphinx --quiet --fail-on-warning --keep-going --nitpicky --fresh-env \
		--conf-dir docs/site --doctree-dir build/doctrees . build/site
	@echo "open build/site/index.html in a browser"

$(SITE_VENV)/installed: requirements/site.txt
	@$(PYTHON) -c "$$CHECK_PYTHON"
	$(PYTHON) -m venv --clear $(SITE_VENV)
	$(SITE_VENV)/bin/python -I -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/site.txt
	touch $@

# One lock per device, for every supported Python; paddlepaddle-gpu is left out, as the index doesn't have it.
# The site's lock has its group of packages alone.
LOCK = uv pip compile --universal --python-version 3.10 \
	--generate-hashes --no-header --no-emit-index-url --no-emit-find-links --quiet
BENCH = pyproject.toml --extra cpu --extra dev --extra opencv --extra lmdb --extra tensorboard
lock:
	$(LOCK) $(BENCH) --output-file requirements/cpu.txt
	$(LOCK) $(BENCH) --no-emit-package paddlepaddle --output-file requirements/gpu.txt
	$(LOCK) --group site --output-file requirements/site.txt
