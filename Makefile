# make demo       make a small data set, train Mona on it, print the result
# make test       run the tests; make test ARGS='-k mona' hands ARGS to pytest
# make test-slow  run all tests, the slow ones included
# make check      lint, and check the format
# make docs       build the site of docs/ into site/, strictly
# make wheel      build the wheel into dist/
# make setup      set up and do nothing more; each target above does that first, and once done it costs nothing
# make clean      remove .venv and what the demo made

VENV := .venv
PY   := $(VENV)/bin/python

# A process for each core, each of which takes about 1 GB. Tensors are tiny: a second thread would only wait.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -n logical --maxprocesses 8 --dist worksteal

# Interpreters to try; name one to choose it: make setup PYTHON=/opt/python3.12/bin/python
PYTHON ?= python3 python3.13 python3.12 python3.11 python3.10

.PHONY: setup demo test test-slow check docs wheel clean

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

docs: $(VENV)/docs.done
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet && echo 'The site is in site/index.html.'

$(VENV)/docs.done: requirements/docs.txt $(VENV)/ready
	@$(PY) -m pip install --quiet --no-deps -r requirements/docs.txt && touch $@

wheel: setup
	@rm -rf build dist
	@$(PY) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist/*.whl

clean:
	rm -rf $(VENV) site data/digits work_dirs/demo mmpeft.egg-info build dist .pytest_cache .ruff_cache
