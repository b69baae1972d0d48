# The only entry points. `make demo` and `make test` need nothing but Python >= 3.11 and a C compiler.
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.ready
COMPILED := $(VENV)/.compiled
HOT := $(wildcard data_plane/*.py data_plane/balancer/*.p* data_plane/observe/*.p* data_plane/proxy/*.p*)
ARGS ?=
# Many tests wait for something, so three at a time keep two cores busy.
PROCESSES ?= 3
# Everything here starts many processes: without bytecode on disk each of them compiles the whole program anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test test-postgres lint type proto bench prove lock clean

help:
	@grep -E '^## ' $(MAKEFILE_LIST) | sed 's/^## //'

$(STAMP): requirements-dev.lock pyproject.toml
	python3 -m venv $(VENV)
	$(PY) -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	POINTSMAN_COMPILED=0 $(PY) -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(STAMP)

# Without a C compiler it says so in one line, and everything runs, slower.
$(COMPILED): $(STAMP) setup.py $(HOT)
	$(PY) -W ignore setup.py -q build_ext --inplace
	touch $(COMPILED)

## setup   make .venv with the locked dependencies and this checkout, and compile the hot path
setup: $(STAMP) $(COMPILED)

## demo    one control plane, three nodes, four upstream servers, ten switches under load, and the ledger
demo: setup
	$(PY) -m tests.support.demo

## test    everything but the long proofs; ARGS="-k router" narrows it, PROCESSES=0 runs one test after the other
test: setup
	$(PY) -m pytest -m "not prove" -n $(PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

## test-postgres  those integration tests whose control planes are processes once more, over PostgreSQL
test-postgres: setup
	$(PY) -m tests.support.over_postgres -n $(PROCESSES) $(ARGS)

## lint    ruff, import contracts, generated code up to date
lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports --no-cache
	$(PY) proto/generate.py --check

## type    mypy strict
type: setup
	$(VENV)/bin/mypy

## proto   regenerate pointsman/wire from proto/
proto: setup
	$(PY) proto/generate.py

## bench   side by side with nginx, HAProxy, Envoy, Traefik and Caddy, and the Admin API's write rate
bench: setup
	$(PY) -m benchmarks.run $(ARGS)

## prove   long proofs with figures; ONLY=name picks one
prove: setup
	$(PY) -m pytest -m prove $(if $(ONLY),-k $(ONLY)) -s $(ARGS)

## lock    write requirements.lock (what runs) and requirements-dev.lock (and what tests) from pyproject.toml
LOCK := $(PY) -m piptools compile -q --generate-hashes --allow-unsafe --strip-extras \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links
lock: setup
	$(PY) -m pip install -q pip-tools
	$(LOCK) -o requirements.lock pyproject.toml
	$(LOCK) --extra dev -o requirements-dev.lock pyproject.toml

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build *.egg-info
	rm -f data_plane/compiled.stamp data_plane/*/*.so
