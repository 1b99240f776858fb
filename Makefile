# The commands of the README; CI runs the same ones.
# PYTHON=…       the interpreter that .venv is made with (else the first that is new enough)
# PYTEST_ARGS=…  more options for pytest
# TEST_PROCESSES=…  how many tests run side by side (else as many as there are cores)
# BENCH_ARGS=…   options for the benchmarks (--only NAME, --evaluation DIR, --models DIR,
#                --output FILE), of which the CLIP ones need `make exactness` to have run;
#                with --output docs/benchmarks.json, `make docs` puts the figures into the README
#                for bench-scale: --rows N, --dim N, --only NAME, --folder DIR, --output FILE
# SOAK_ARGS=…    options for the soak (--kills N, --files N, --seed N)

BIN := .venv/bin
PYTHON ?=
PYTEST_ARGS ?=
TEST_PROCESSES ?= logical
BENCH_ARGS ?=
SOAK_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test soak exactness check bench bench-scale format docs lock

help:
	@echo "make setup   make .venv with everything that is needed"
	@echo "make demo    index sample photos, search them, write a contact sheet"
	@echo "make test    run all tests"
	@echo "make soak    kill a server 200 times while files and index change at random"
	@echo "make exactness  compare with transformers; gets torch, in a venv of its own"
	@echo "make check   run all static checks"
	@echo "make bench   measure, print the figures and write them to bench-results.json"
	@echo "make bench-scale  the same of an index of a million vectors: takes an hour, and 20 GB"
	@echo "make format  put the code into the house's format"
	@echo "make docs    renew the generated parts of the documentation"
	@echo "make lock    resolve the dependencies again"

setup:
	@scripts/setup.sh $(PYTHON)

demo: setup
	@$(BIN)/python scripts/demo.py

test: setup
	@scripts/install_test_packages.sh
	@$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist worksteal $(PYTEST_ARGS)

soak: setup
	@PYTHONPATH=tests $(BIN)/python -m soak $(SOAK_ARGS)

exactness: setup
	@scripts/setup_exactness.sh
	@.venv-exactness/bin/python -m pytest tests/exactness $(PYTEST_ARGS)

check: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/lock.py --check
	$(BIN)/python scripts/render_docs.py --check
	$(BIN)/python scripts/check_docs.py

bench: setup
	@PYTHONPATH=tests $(BIN)/python -m bench.run $(BENCH_ARGS)

bench-scale: setup
	@scripts/setup_lancedb.sh
	@PYTHONPATH=tests $(BIN)/python -m bench.scale $(BENCH_ARGS)

format: setup
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

docs: setup
	@$(BIN)/python scripts/render_docs.py

lock:
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(or $(PYTHON),python3) scripts/lock.py
