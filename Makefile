# Two commands do everything on a machine with Python 3.11 or later, git and make:
#   make demo    the notebook's queries over a small cube of sessions, or over your files: make demo NWB="FOLDER"
#   make test    lint, types and the test suite
# Others: make quick (lint, types and the unit tests), make suite (tests alone), make lint, make format, make docs (into site/), make bench, make fuzz, make clean.

# The first interpreter that is new enough; `make demo PYTHON=/path/to/python3` names another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo "$$p"; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
# uv, where it is on the path, installs packages in parallel. Neither compiles modules, most of which the tests never import.
PIP := $(if $(shell command -v uv),uv pip install --quiet --python $(BIN)/python,\
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-compile)

# One process more than two cores: tests wait for servers and child processes.
PYTEST := $(BIN)/python -m pytest -n 3 --dist worksteal

# Reaches the demonstration as it was typed: the shell neither splits nor expands it.
export NWB

.PHONY: demo quick unit test suite lint format docs bench fuzz clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.installed
	@$(BIN)/python -m lazynwb.demo $${NWB:+"$$NWB"}

# Both at once: lint leaves a core idle.
quick: $(VENV)/.installed-dev
	@$(MAKE) --no-print-directory -j 2 lint unit

unit: $(VENV)/.installed-dev
	@$(BIN)/python -m pytest -n 2 --dist worksteal --unit $(PYTEST_ARGS)

# Lint runs beside the tests; what it finds is the last output.
test: $(VENV)/.installed-dev
	@$(MAKE) --no-print-directory lint >$(VENV)/lint.log 2>&1 & lint=$$!; \
	$(PYTEST) $(PYTEST_ARGS); tests=$$?; \
	wait $$lint || { echo "make lint fails:"; cat $(VENV)/lint.log; exit 1; }; exit $$tests

suite: $(VENV)/.installed-dev
	@$(PYTEST) $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo >/dev/null || $(BIN)/lint-imports --no-logo

format: $(VENV)/.installed-dev
	@$(BIN)/ruff check --fix --quiet
	@$(BIN)/ruff format --quiet

# The examples of the pages run, with the packages that the tests need.
docs: $(VENV)/.installed-docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

bench: $(VENV)/.installed
	@$(BIN)/python benchmarks/run.py $(BENCH_ARGS)

# Long runs: what `make test` does in a few hundred cases each.
fuzz: $(VENV)/.installed-dev
	@$(BIN)/python tests/damage.py --cases 10000 --seed 0
	@$(BIN)/python tests/hdf5_structure.py --cases 20000 --seed 0
	@$(BIN)/python tests/random_truth.py --examples 5000 --seed 0 --jobs 2
	@$(BIN)/python tests/faulty_proxy.py --queries 1000 --seed 0
	@$(BIN)/python tests/shared_store.py --seed 0

clean:
	rm -rf $(VENV) site .bench .mypy_cache .pytest_cache .ruff_cache .hypothesis dist

# The stamps say that a step is done. They come last, so a step that failed half-way is done again.
$(VENV)/.created:
	@test -n "$(PYTHON)" || { echo "lazynwb needs Python 3.11 or later: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Setting up $(VENV) (once)"
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml
	@$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.created pyproject.toml
	@$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: $(VENV)/.created pyproject.toml
	@$(PIP) --editable '.[dev,docs]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-dev
