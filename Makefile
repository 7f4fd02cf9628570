# Two commands do everything on a fresh machine with Python 3.11 to 3.14 and pip: `make demo` and `make test`. `make help`
# lists all. For those who release: `make release`, `make audit`, `make lock` (docs/supply-chain.md).

# python3, or where the locks do not cover it the newest that they do; or PYTHON=, with VENV= for an environment beside others.
COVERED := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))
PYTHON ?= $(or $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c '$(COVERED)' 2>/dev/null && echo $$python && break; done),$(error no Python 3.11 to 3.14 here: set PYTHON=))
VENV ?= .venv
BIN := $(VENV)/bin
TOOLS := .venv-release/bin
LOCKED := -m pip install --quiet --require-hashes --no-deps --requirement
SBOM := build/sparse-sts-index.cdx.json
IN_TWO := --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: audit clean demo dist format help jar lanes lanes-light licences lint lock release smoke test test-fast
.DELETE_ON_ERROR:

demo: $(VENV)/installed  ## run the main job offline: train, index, search, evaluate
	rm -rf demo-output
	HF_HUB_OFFLINE=1 $(BIN)/sparse-sts demo --output demo-output

test: lint  ## lint, then all tests
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest $(IN_TWO)

lint: $(VENV)/installed  ## style, types, spelling, and which room may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/typos
	$(BIN)/lint-imports --no-logo --no-cache

format: $(VENV)/installed  ## mend what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-fast: lint  ## lint, then the unit tests that are not marked slow
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest $(IN_TWO) -m "not slow" tests/unit

# On each Python that is here (docs/lanes.md): the tests and the demo, in environments of their own under build/lanes; or, in
# seconds and minutes, what needs no torch, on all but the Python of `make test`.
lanes:  ## all tests on each Python that is here, for an hour
	$(PYTHON) tests/lanes.py full

lanes-light:  ## the tests that need no torch, on the other Pythons that are here
	$(PYTHON) tests/lanes.py light

help:  ## list these targets
	@awk -F ':.*  ## ' '/^[a-z-]+:.*  ## / {printf "%-11s %s\n", $$1, $$2}' Makefile

# An environment with what a lock names. What sources are built with comes first: nothing is fetched behind the locks' back.
define environment
	$(PYTHON) -m venv $(1)
	$(1)/bin/python $(LOCKED) requirements/build.lock
	$(1)/bin/python $(LOCKED) requirements/$(2).lock --no-build-isolation
endef

# The package in an environment of its own, with torch: the CPU build where pip finds it, else PyPI's, which brings CUDA's
# libraries on Linux.
define install
	$(call environment,$(1),test)
	$(1)/bin/python $(LOCKED) requirements/torch-cpu.lock || { \
		echo "no CPU build of torch here for this Python: taking PyPI's"; \
		$(1)/bin/python $(LOCKED) requirements/torch-pypi.lock; }
	$(1)/bin/python -m pip install --quiet --no-deps --no-build-isolation $(2)
	$(1)/bin/python -m pip check
endef

$(VENV)/installed: pyproject.toml $(addprefix requirements/,build.lock test.lock torch-cpu.lock torch-pypi.lock)
	$(call install,$(VENV),--editable .)
	touch $@

$(VENV)/light: pyproject.toml $(addprefix requirements/,build.lock light.lock)
	$(call environment,$(VENV),light)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

.venv-release/installed: requirements/release.lock
	$(PYTHON) -m venv .venv-release
	$(TOOLS)/python $(LOCKED) requirements/release.lock
	touch $@

# The locks anew, from pyproject.toml and constraints.txt; `make lock LOCK=--upgrade` renews what only others ask for.
lock: .venv-release/installed  ## resolve the locks again; LOCK=--upgrade renews all versions
	$(TOOLS)/python requirements/lock.py $(LOCK)

# The project's own Java, compiled by a JDK 21 or newer; the jar is committed.
jar: $(VENV)/installed  ## compile the project's own Java
	$(BIN)/python release/jar.py

# Fails where no advisories can be had (--strict), rather than find nothing.
audit: .venv-release/installed  ## look for known vulnerabilities
	set -e; for lock in $(filter-out %/torch-cpu.lock,$(wildcard requirements/*.lock)); do \
		$(TOOLS)/pip-audit --strict --disable-pip --requirement $$lock; done

$(SBOM): $(VENV)/installed .venv-release/installed release/sbom.py release/licences.toml
	mkdir -p build
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(TOOLS)/cyclonedx-py environment --pyproject pyproject.toml \
		--mc-type library --output-reproducible --output-file build/packages.cdx.json $(BIN)/python
	$(TOOLS)/python release/sbom.py $(BIN)/python < build/packages.cdx.json > $@

licences: $(SBOM)  ## check licences and write docs/third-party.md
	$(TOOLS)/python release/licences.py docs/third-party.md < $(SBOM)

# Sdist and wheel of the last commit, built twice and the same.
dist: .venv-release/installed  ## build sdist and wheel, twice and the same
	rm -rf dist
	$(TOOLS)/python release/build.py dist
	$(TOOLS)/twine check --strict dist/*
	$(TOOLS)/check-wheel-contents dist/*.whl

# The sdist on a machine that has nothing: a wheel of it in an environment of its own, the demo in another folder.
smoke: dist  ## install the sdist in an empty environment and run the demo
	rm -rf build/smoke
	$(call install,build/smoke,dist/*.tar.gz)
	cd build/smoke && HF_HUB_OFFLINE=1 bin/sparse-sts demo --output demo-output
	rm -rf build/smoke

release: smoke licences  ## everything that a release needs
	git diff --exit-code docs/third-party.md
	cp $(SBOM) dist
	cd dist && sha256sum * > SHA256SUMS && cat SHA256SUMS

clean:  ## remove environments and outputs
	rm -rf .venv .venv-release build dist demo-output *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis site .coverage*

# The documentation, in site/: nothing in it is loaded from elsewhere.
.PHONY: docs
docs: $(VENV)/installed-docs  ## build the documentation in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/installed-docs: $(VENV)/installed requirements/docs.lock
	$(BIN)/python $(LOCKED) requirements/docs.lock
	touch $@

# Hostile input, for some twenty minutes (docs/threat-model.md); by coverage where there is an atheris for this Python.
.PHONY: fuzz
fuzz: $(VENV)/installed  ## feed hostile input to every reader, for 20 minutes
	$(BIN)/python $(LOCKED) requirements/fuzz.lock || echo "no atheris here: hypothesis alone"
	HF_HUB_OFFLINE=1 $(BIN)/python tests/fuzz/run.py

# Faults, for about an hour (docs/faults.md): kills, full and failing disks, damage, small heaps, writers and readers.
.PHONY: soak
soak: $(VENV)/installed  ## inject faults, for an hour
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -s tests/soak
	$(BIN)/python tests/soak/table.py

# The tests once more, and which branches of the library they take; what runs in processes of their own counts, too.
.PHONY: coverage
coverage: $(VENV)/installed  ## run all tests and report coverage
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest $(IN_TWO) --cov --cov-report=term:skip-covered

# Mutants of the quantizer, the certificate and the kernels (run as Python: compiled code has no mutants), in
# build/mutation; fails if one lives that docs/mutation.md does not account for.
.PHONY: mutation
mutation: $(VENV)/installed  ## mutate quantizer, certificate and kernels, and run their tests
	$(BIN)/python $(LOCKED) requirements/mutation.lock
	rm -rf build/mutation
	mkdir -p build/mutation
	cp -r cli sparse_sts_index tests pyproject.toml build/mutation
	cd build/mutation && HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 NUMBA_DISABLE_JIT=1 $(CURDIR)/$(BIN)/mutmut run
	cd build/mutation && $(CURDIR)/$(BIN)/python tests/mutation/results.py $(CURDIR)/docs/mutation.md \
		$(CURDIR)/benchmarks/results/mutation.json
