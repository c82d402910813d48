# make run, make test, make docs: each sets up what it needs in .venv the first time, and says before how much it fetches.
PYTHON ?= python3.11
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install
ARGS ?=

.PHONY: run test test-all docs lint lock

run: .venv/.run
	$(BIN)/tracefl run $(ARGS)

# One thread a worker: threads that wait for a core spin, and cost a small run five times its time. One worker more than
# there are cores, since some tests wait for Ray, SLURM or Flower. Hundreds of processes import torch: with its bytecode.
test: .venv/.dev
	cd TraceFL && OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= ../$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

# Also the tests marked long, each a longer form of one that always runs.
test-all:
	$(MAKE) test ARGS="--all $(ARGS)"

# Into site/; the notebooks are run for it. make test builds it too, strictly, and looks at what was built.
docs: .venv/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)

lint: .venv/.dev
	cd TraceFL && ../$(BIN)/ruff check . && ../$(BIN)/ruff format --check . && ../$(BIN)/mypy
	$(BIN)/shellcheck -x .ci/run $$(find . -name "*.sh" -not -path "./.venv/*")

# What a user needs: every extra but the developers' own. The lock gives the versions.
.venv/.run: requirements.lock TraceFL/pyproject.toml
	@sed -n 's/^# \(make run: .*\)/\1/p' requirements.lock
	$(PYTHON) -m venv .venv
	$(PIP) --constraint requirements.lock --editable "TraceFL[run,text,privacy,wandb]"
	$(FOR_FLOWER)
	touch $@

# All of the lock.
.venv/.dev: requirements.lock TraceFL/pyproject.toml
	@sed -n 's/^# \(make test: .*\)/\1/p' requirements.lock
	$(PYTHON) -m venv .venv
	$(PIP) --requirement requirements.lock
	$(PIP) --no-deps --no-build-isolation --editable TraceFL
	$(FOR_FLOWER)
	touch .venv/.run $@

# Else each `flwr run` installs torch anew, and its Ray answers whoever reaches this machine.
FOR_FLOWER = grep -qs FLWR_DISABLE $(BIN)/activate || { (umask 077; \
	$(BIN)/python -c 'import secrets; print(secrets.token_hex(32))' > .venv/ray_token) && echo "\
	export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1 RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$(CURDIR)/.venv/ray_token" \
	>> $(BIN)/activate; }

# After a change of pyproject.toml's dependencies.
lock: .venv/.dev
	$(BIN)/uv pip compile TraceFL/pyproject.toml --extra dev --universal --python-version 3.11 --no-emit-index-url \
		--no-emit-find-links --no-annotate --no-header --output-file requirements.lock
	cd TraceFL && ../$(BIN)/python -m documentation.downloads
