# make run, make test, make docs: each sets up everything it needs in .venv the first time.
PYTHON ?= python3.11
BIN := .venv/bin
ARGS ?=

.PHONY: run test test-all docs lint lock

run: .venv/.installed
	$(BIN)/python -m tracefl.main $(ARGS)

# One thread a worker: threads that wait for a core spin, and cost a small run five times its time.
test: .venv/.installed
	cd TraceFL && OMP_NUM_THREADS=1 ../$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

# Also the tests marked long, each a longer form of one that always runs.
test-all:
	$(MAKE) test ARGS="--all $(ARGS)"

# Into site/; the notebooks are run for it. make test builds it too, strictly, and looks at what was built.
docs: .venv/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)

lint: .venv/.installed
	cd TraceFL && ../$(BIN)/ruff check . && ../$(BIN)/ruff format --check . && ../$(BIN)/mypy
	$(BIN)/shellcheck -x .ci/run $$(find . -name "*.sh" -not -path "./.venv/*")

.venv/.installed: requirements.lock TraceFL/pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e TraceFL
	echo 'export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1' >> $(BIN)/activate # else `flwr run` installs torch anew
	touch $@

# After a change of pyproject.toml's dependencies; needs uv.
lock:
	uv pip compile TraceFL/pyproject.toml --extra dev --universal --python-version 3.11 --no-emit-index-url \
		--no-emit-find-links --no-annotate --no-header --output-file requirements.lock
