# `make demo`, `make test`: a fresh machine with CPython 3.10-3.12 is enough.
VENV := .venv
BIN := $(VENV)/bin
SUPPORTED := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3; do \
	$$p -c "$(SUPPORTED)" 2>/dev/null && { echo $$p; break; }; done)
# One more worker than the two cores that the suite is measured on: some tests wait for processes.
JOBS ?= 3

.PHONY: build/types demo docs install test pytest test-fast test-android lint types format wheel clean

demo: $(VENV)/runtime
	$(BIN)/kbnn demo

install: $(VENV)/development

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "error: kbnn needs CPython 3.10, 3.11 or 3.12, none was found; install one or run 'make PYTHON=/path/to/python3.11'" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/runtime: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/development: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/runtime

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# models/ and converters/ are installed as kbnn.models and kbnn.converters; mypy and the API reference see them there.
build/types: install
	@rm -rf build/types && mkdir -p build/types/kbnn
	@ln -s $(CURDIR)/kbnn/* $(CURDIR)/models $(CURDIR)/converters build/types/kbnn/

types: build/types
	MYPYPATH=build/types $(BIN)/mypy -p kbnn

# The documentation as a site in build/site; broken links and missing pages are errors.
docs: build/types
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# mypy uses one core for a minute, so it runs in parallel with the tests.
test:
	$(MAKE) --jobs=2 lint types pytest

# TensorFlow keeps what XLA compiles, so those tests have workers of their own.
pytest: install
	$(BIN)/pytest -n $(JOBS) --dist worksteal -m "not xla"
	$(BIN)/pytest -n $(JOBS) --dist worksteal -m xla

test-fast: install
	$(BIN)/pytest -n $(JOBS) --dist worksteal -m "not slow"

# The Android app's sources against Android's and TensorFlow Lite's real classes, and its tests on a JVM. With
# GOOGLE_MAVEN, the address of Google's Maven repository, also the activity's on a simulated Android.
test-android:
	@if command -v mvn >/dev/null && command -v javac >/dev/null; \
	then mvn -B -q -f android_demo/jvm/pom.xml test $(if $(GOOGLE_MAVEN),-Dgoogle.maven=$(GOOGLE_MAVEN)); \
	else echo "skipped: test-android needs a JDK 17 or later, and Maven" >&2; fi

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: install
	$(BIN)/python -m build --wheel

clean:
	rm -rf $(VENV) build dist *.egg-info
