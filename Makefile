# make demo       make a small data set, train Mona on it, print the result
# make test       run the tests; make test ARGS='-k mona' hands ARGS to pytest
# make test-slow  run all tests, the slow ones included
# make check      lint, and check the format
# make setup      set up and do nothing more; each target above does that first, and once done it costs nothing
# make clean      remove .venv and what the demo made

VENV := .venv
PY   := $(VENV)/bin/python

# A process for each core, each of which takes about 1 GB. Tensors are tiny: a second thread would only wait.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -n logical --maxprocesses 8 --dist worksteal

# Interpreters to try; name one to choose it: make setup PYTHON=/opt/python3.12/bin/python
PYTHON ?= python3 python3.13 python3.12 python3.11 python3.10

.PHONY: setup demo test test-slow check clean

setup: $(VENV)/ready
	@:

$(VENV)/ready: requirements/install.sh $(wildcard requirements/*.txt) setup.py mmpeft/torchvision_ops.py
	@PYTHON='$(PYTHON)' sh requirements/install.sh $(VENV)

demo: setup
	@$(PY) tools/demo.py $(ARGS)

test: setup
	@$(PYTEST) $(ARGS)

test-slow: setup
	@$(PYTEST) -m '' $(ARGS)

check: setup
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check

clean:
	rm -rf $(VENV) data/digits work_dirs/demo mmpeft.egg-info build .pytest_cache .ruff_cache
