# Two commands set everything up by themselves: `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Threads that spin for long while they wait for each other make a busy machine several times slower.
export GOMP_SPINCOUNT ?= 10000
# Tests run side by side, the files whole: what a file sets up for all its tests is set up once. In their order, in
# which the long ones come early: what is left at the end is short and shared out well.
TOGETHER := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-slow lint bench install clean

demo: $(INSTALLED)
	$(BIN)/disback record
	$(BIN)/disback backtrack
	@echo "(to type disback without its folder: source $(BIN)/activate)"

test: $(INSTALLED)
	$(BIN)/python -m pytest $(TOGETHER) -m "not slow"

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest $(TOGETHER) -m slow

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.schedules
	$(BIN)/python -m benchmarks.spacing
	$(BIN)/python -m benchmarks.shared_draw
	$(BIN)/python -m benchmarks.convergence

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
