# Two commands on a fresh machine with Python >= 3.11: `make train` and `make test`. Each makes .venv and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help train test demo bench lint check clean

help:
	@echo "make train   draw the sample set, train a narrow spyv4_lite on it with FPTT, show the result (minutes)"
	@echo "             (again: goes on where it was stopped, or shows the result; make clean starts anew)"
	@echo "make test    run the tests"
	@echo "make demo    open the demo in the browser"
	@echo "             (LOCK=1, before .venv is there: the very versions of .ci/requirements.lock)"
	@echo "make bench   time inference, training and loading here; tables in runs/bench/performance.md (twenty minutes)"
	@echo "make check   tests, ruff, mypy and the import rules, as in CI"
	@echo "make clean   remove .venv, runs/sample and runs/sample-data"

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "spyolo needs Python 3.11 or newer; set PYTHON=...")'
	@echo "== making $(VENV) and installing (once; PyTorch is large) =="
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(if $(LOCK),$(BIN)/python -m pip install --quiet --progress-bar on -r .ci/requirements.lock,@:)
	$(BIN)/python -m pip install --quiet --progress-bar on -e ".[dev]"
	@touch $(STAMP)

train: $(STAMP)
	$(BIN)/python tools/train.py $(if $(wildcard runs/sample/config.yaml),--resume runs/sample,--preset sample --out runs/sample) $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest $(ARGS)

demo: $(STAMP)
	$(BIN)/python app/demo.py --open $(ARGS)

bench: $(STAMP)
	$(BIN)/python tools/bench/inference.py --batch 1
	$(BIN)/python tools/bench/inference.py --batch 16 --budget 2
	$(BIN)/python tools/bench/layers.py --precision int8
	$(BIN)/python tools/bench/training.py
	$(BIN)/python tools/bench/training.py --memory
	$(BIN)/python tools/bench/loading.py
	$(BIN)/python tools/bench/table.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: test lint

clean:
	rm -rf $(VENV) runs/sample runs/sample-data
