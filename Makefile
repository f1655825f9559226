PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Processes that are stopped, timed or weighed are so alone; all other tests share the cores, browsers too.
ALONE := hangs load memory serve serve_decisions_ended serve_told strangers train_stopped
ALONE := $(ALONE:%=tests/e2e/test_%.py)
PARALLEL := -n auto --maxprocesses 4 --dist loadfile tests $(ALONE:%=--ignore %)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt
# torchvision, for tests beside transformers' processor of pictures, stands apart: the published one is built for CUDA,
# and beside another torch it breaks every import of transformers. See tests/parity/processor.py.
BROWSER := chromium chromium-driver fonts-dejavu-core
EMULATOR := g++-aarch64-linux-gnu qemu-user

.PHONY: demo docs test test-full check browser emulator clean

$(BIN)/.redraft: pyproject.toml .ci/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e .
	touch $@

$(BIN)/.redraft-dev: pyproject.toml .ci/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[dev]'
	$(INSTALL) --no-deps --upgrade --target $(VENV)/apart torchvision
	touch $(BIN)/.redraft $(BIN)/.redraft-docs $@

$(BIN)/.redraft-docs: pyproject.toml .ci/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[docs]'
	touch $(BIN)/.redraft $@

demo: $(BIN)/.redraft  ## run mini on a real sentence, the canvas drawn live
	$(BIN)/redraft run "add Nina Simone to my Sunday morning playlist" --live --seed 0
	@echo 'Next: . $(BIN)/activate && redraft chat'

docs: $(BIN)/.redraft-docs  ## the documentation, as a site in build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "build/docs/index.html"

# $(call debian,PROGRAMS,PACKAGES,WHAT): from Debian's packages, where programs are missing.
define debian
	@(for program in $(1); do command -v $$program || exit 1; done) >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get -qq update && apt-get -qq install --yes --no-install-recommends $(2) >/dev/null; \
	  else \
	    echo "$(3) are skipped; on Debian, they need: apt-get install $(2)" >&2; \
	  fi || true; \
	}
endef

browser:  ## Chromium and its driver, from Debian's packages where they are missing
	$(call debian,chromium chromedriver,$(BROWSER),The browser tests)

emulator:  ## what builds and runs kernels for ARM, from Debian's packages where it is missing
	$(call debian,aarch64-linux-gnu-g++ qemu-aarch64,$(EMULATOR),Tests of ARM kernels)

test: $(BIN)/.redraft-dev browser emulator  ## the suite, with long runs sampled
	$(BIN)/python -m pytest $(ALONE)
	$(BIN)/python -m pytest $(PARALLEL)

test-full: $(BIN)/.redraft-dev browser emulator  ## the suite, whole
	REDRAFT_FULL_TESTS=1 $(BIN)/python -m pytest $(ALONE)
	REDRAFT_FULL_TESTS=1 $(BIN)/python -m pytest $(PARALLEL)

check: $(BIN)/.redraft-dev  ## style, types, frozen help text
	$(BIN)/ruff check src tests benchmarks examples docs
	$(BIN)/ruff format --check src tests benchmarks examples docs
	$(BIN)/pyright
	$(BIN)/python -m pytest tests/test_architecture.py tests/unit/test_cli_help.py

clean:
	rm -rf $(VENV) build dist src/*.egg-info
