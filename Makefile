PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-full check train-mini clean

$(BIN)/.redraft: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(BIN)/.redraft-dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $(BIN)/.redraft $@

demo: $(BIN)/.redraft  ## run mini on a real sentence, the canvas drawn live
	$(BIN)/redraft run "add the new Daft Punk album to my Sunday morning playlist" --live --seed 0

test: $(BIN)/.redraft-dev  ## the suite, with long runs sampled
	$(BIN)/python -m pytest

test-full: $(BIN)/.redraft-dev  ## the suite, whole
	REDRAFT_FULL_TESTS=1 $(BIN)/python -m pytest

check: $(BIN)/.redraft-dev  ## style, types, frozen help text
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/pyright
	$(BIN)/python -m pytest tests/test_architecture.py tests/unit/test_cli_help.py

clean:
	rm -rf $(VENV) build dist src/*.egg-info
