# The newcomer's commands: make demo, make test. Everything lives in .venv; nothing else is touched.
PYTHON ?= python3
DURATION ?= 30
RATE ?= 50
JOBS ?= 3
BIN := .venv/bin
KERNEL_TESTS := tests/trees tests/attribution/test_treeshap.py tests/attribution/test_ablation.py tests/models/test_incremental.py \
	tests/reranker/test_runtime.py tests/explain/test_ablate.py
KERNEL_SOURCES := $(shell find models stream/agents stream/explain -name '*.py')

.PHONY: setup setup-dev demo test test-fast test-checked faults lint format clean help

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

setup: .venv/.run ## environment to run whyrec
setup-dev: .venv/.dev ## the same with torch, test and lint tools

demo: .venv/.kernels ## the whole service for DURATION seconds at RATE slates a second
	$(SAY) "Starting the demonstration"
	@$(BIN)/whyrec demo --duration $(DURATION) --rate $(RATE)

test: .venv/.dev .venv/.kernels ## all tests, JOBS files at a time, against a real broker, registry and object store
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations 15 $(ARGS)

test-fast: .venv/.dev .venv/.kernels ## the tests that need neither servers nor seconds: at most two minutes on two cores
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not server and not slow" $(ARGS)

test-checked: .venv/.dev ## the tests of the compiled kernels, with every access to an array checked
	WHYREC_CHECKED_KERNELS=1 $(BIN)/python -m pytest -n 2 --timeout 900 $(KERNEL_TESTS) $(ARGS)

faults: .venv/.dev ## kill, freeze, starve and cut off workers, hundreds of times; count what is lost or comes twice
	$(BIN)/python -m tests.faults $(ARGS)

lint: .venv/.dev ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: .venv/.dev ## let ruff write the code's form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environment and what the demo wrote
	rm -rf .venv demo

# uv installs in seconds what takes pip a minute; pip serves where there is no uv.
UV := $(shell command -v uv 2>/dev/null)
ifdef UV
VENV := uv venv --quiet --seed --python $(PYTHON) .venv
INSTALL := uv pip install --python $(BIN)/python -c constraints.txt
else
VENV := $(PYTHON) -m venv .venv
INSTALL := $(BIN)/python -m pip install -q --disable-pip-version-check --no-compile -c constraints.txt
endif
SAY = @echo "[$$(date +%T)]"

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "whyrec needs Python 3.11 or newer; set PYTHON=…" >&2; exit 1; }
	$(SAY) "Creating .venv with $$($(PYTHON) --version)"
	@$(VENV)

.venv/.run: pyproject.toml constraints.txt | .venv/bin/python
	$(SAY) "Installing whyrec with $(if $(UV),uv,pip (a minute or two; with uv on the PATH, seconds))"
	@$(INSTALL) -e .
	@touch $@

.venv/.dev: pyproject.toml constraints.txt | .venv/bin/python
	$(SAY) "Installing whyrec with PyTorch and the tools for tests with $(if $(UV),uv,pip (a few minutes))"
	@$(INSTALL) -e '.[train,dev]'
	@touch $@ .venv/.run

.venv/.kernels: $(KERNEL_SOURCES) | .venv/.run
	$(SAY) "Warming up"
	@$(BIN)/python -m stream.agents.warm_up
	@touch $@
