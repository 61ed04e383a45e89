# Two commands matter to a newcomer: `make demo` and `make test`. Each sets up all that it needs, in .venv.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
# uv resolves and fetches in parallel: seconds where pip takes minutes.
INSTALL := $(BIN)/uv pip install --quiet --only-binary :all:
# Some containers forbid Python its byte code: each of hundreds of processes would compile all that it imports, two seconds.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: wheelhouse demo page test test-slow check bench docs setup browser postgres iproute promtool constraints clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       explain a model on real data; prints what it found and what it wrote where"
	@echo "make page       the page, with a job of each analysis; http://127.0.0.1:8373"
	@echo "make test       all tests (some minutes)"
	@echo "make check      format, lint, types, the direction of imports"
	@echo "make test-slow  long chaos runs, scaling, notebooks"
	@echo "make bench      ratios against peers, measured side by side; pictures in bench/results"
	@echo "make wheelhouse  wheels for a host without a network, in wheelhouse/"
	@echo "make docs       the documentation as a site in site/"

# A stamp per set of packages: nothing is installed twice.
$(VENV)/pip.stamp:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --only-binary :all: 'uv>=0.9'
	@touch $@

$(VENV)/all.stamp: $(VENV)/pip.stamp pyproject.toml constraints.txt
	$(INSTALL) --python $(BIN)/python --constraint constraints.txt --editable '.[all]'
	@touch $@

$(VENV)/test.stamp: $(VENV)/all.stamp
	$(INSTALL) --python $(BIN)/python --constraint constraints.txt --group test --group check
	@touch $@

$(VENV)/bench.stamp: $(VENV)/test.stamp
	$(INSTALL) --python $(BIN)/python --constraint constraints.txt --group bench
	@touch $@

$(VENV)/docs.stamp: $(VENV)/test.stamp
	$(INSTALL) --python $(BIN)/python --constraint constraints.txt --group docs
	@touch $@

# DoWhy holds SciPy back, so it lives apart.
$(VENV)/dowhy.stamp: $(VENV)/pip.stamp pyproject.toml constraints-dowhy.txt
	$(PYTHON) -m venv $(VENV)/dowhy
	$(INSTALL) --python $(VENV)/dowhy/bin/python --constraint constraints-dowhy.txt --editable '.[refute,sklearn]' --group dowhy
	@touch $@

setup: $(VENV)/test.stamp

# The report is tested in a real browser.
browser:
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; }

demo: $(VENV)/all.stamp
	$(BIN)/millrace demo

page: $(VENV)/all.stamp
	$(BIN)/millrace demo --page

# Hosts of a test are network namespaces.
iproute:
	@command -v ip >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends iproute2 >/dev/null; }

# Jobs are tested on a real PostgreSQL.
postgres:
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql >/dev/null; }

# Alert rules are tested with Prometheus' own tool.
promtool:
	@command -v promtool >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus >/dev/null; }

# One BLAS thread, as in workers: more are slower on small problems, and change the last bits.
test test-slow: export OPENBLAS_NUM_THREADS = 1
test test-slow: export OMP_NUM_THREADS = 1

# A process a folder: what one folder's libraries leave running (threads, open files) is not the next one's business. Two
# folders at a time, the longest first, each with core tokens of its own. What each printed is shown when it ends; all run,
# and one that fails makes the whole fail.
LONGEST := explain cli refute twin service engines jobs stores calibrate
PARTS := $(LONGEST:%=tests/%/) $(filter-out $(LONGEST:%=tests/%/),$(sort $(wildcard tests/[a-z]*/))) tests/test_settings.py

# What tests need besides Python: Debian's packages.
SERVERS := browser postgres iproute promtool

test: $(VENV)/test.stamp $(SERVERS)
	@printf '%s\n' $(PARTS) | xargs -P 2 -I PART sh -c 'own=$$(mktemp -d /var/tmp/millrace-test-XXXXXX); \
		MILLRACE_TOKENS=$$own/tokens timeout 1800 $(BIN)/pytest -q -m "not slow" PART >$$own/told 2>&1; code=$$?; \
		echo "== PART"; cat $$own/told; rm -rf $$own; [ $$code = 0 ] || exit 1'

# One folder at a time; that a folder has no slow test is no failure.
test-slow: $(VENV)/test.stamp $(VENV)/dowhy.stamp $(SERVERS)
	@set -e; for part in $(PARTS); do \
		echo "== $$part"; $(BIN)/pytest -q -m "slow and not dowhy" $$part || [ $$? = 5 ]; done
	$(VENV)/dowhy/bin/pytest -q -m dowhy tests/refute/test_dowhy.py

check: $(VENV)/test.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/bench.stamp $(VENV)/dowhy.stamp
	$(BIN)/python -m bench

docs: $(VENV)/docs.stamp
	$(BIN)/mkdocs build --strict --quiet

# What the newest wheels are today, without hashes: a reproducible set-up, not a requirement.
constraints: $(VENV)/docs.stamp $(VENV)/bench.stamp $(VENV)/dowhy.stamp
	$(BIN)/uv pip freeze --exclude-editable --python $(BIN)/python > constraints.txt
	$(BIN)/uv pip freeze --exclude-editable --python $(VENV)/dowhy/bin/python > constraints-dowhy.txt

# Wheels for a host without a network: those of the constraints, and millrace's own. `make wheelhouse EXTRAS=explain,refute`.
EXTRAS ?= all
wheelhouse: $(VENV)/pip.stamp
	$(PIP) wheel --no-deps --wheel-dir wheelhouse .
	$(PIP) download --only-binary :all: --constraint constraints.txt --dest wheelhouse '.[$(EXTRAS)]'

clean:
	rm -rf $(VENV) site dist .pytest_cache .mypy_cache .ruff_cache
