# Thin on purpose: each target is one or two commands. `make` alone lists them.
PYTHON      ?= python3
REPO        ?=
TORCH_INDEX ?=

VENV  := .venv
PY    := $(VENV)/bin/python
READY := $(VENV)/.ready
PAGES := _build/.pages
SOURCES := $(shell find book sobolev_lib notebooks -type f -not -name '*.pyc' 2>/dev/null) \
           _config.yml _toc.yml CHANGELOG.md

export TQDM_DISABLE := 1
export JUPYTER_PREFER_ENV_PATH := 1
unexport MPLBACKEND

.DEFAULT_GOAL := help
.PHONY: help book test lab notebooks bench pdf clean FORCE

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  PYTHON=python3.12    the Python (3.11 or newer) that the environment in $(VENV) is made from"
	@echo "  TORCH_INDEX=URL      a package index with a CPU build of torch (README: Installing torch without CUDA)"
	@echo "  REPO=URL             book: adds the launch, edit and issue buttons of that repository;"
	@echo "                       notebooks: writes the address into their first cells, which install the library in Colab"
	@echo "  CHROMIUM=PATH        the browser that opens the pages in tests and prints the PDF; without it one is found or fetched"

book: $(PAGES)  ## build the book and say where to open it
	@$(PY) -c 'import pathlib; print("Open", pathlib.Path("_build/html/index.html").resolve().as_uri())'

test: $(PAGES)  ## everything that CI checks: style, library, notebooks, pages
	$(PY) -m ruff check .
	@$(PY) -m tools.programs || [ $$? = 1 ]
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile --nbval --nbval-current-env \
	  --nbval-cell-timeout 300 tests $(wildcard notebooks/*.ipynb)

lab: $(VENV)/.lab  ## open the notebooks in JupyterLab
	$(PY) -m jupyterlab notebooks

notebooks: $(READY)  ## execute every chapter again and write its outputs
	$(PY) tools/execute.py $(if $(REPO),--repo $(REPO))

bench: $(VENV)/.bench  ## the case study and the suite over seeds, then speed: tables, and JSON in results/
	$(PY) -m benchmarks.case_study --seed 0 1 2 --out results/case_study.json
	OMP_NUM_THREADS=1 $(PY) -m benchmarks.suite --out results/suite.json
	OMP_NUM_THREADS=1 $(PY) -m benchmarks.suite --robustness --out results/robustness.json
	OMP_NUM_THREADS=1 $(PY) -m benchmarks.speed --out results/speed.json

pdf: $(PAGES)  ## print the built book into _build/sobolev-pruning.pdf
	@$(PY) -m tools.programs --only browser
	$(PY) -m tools.pdf _build/sobolev-pruning.pdf

clean:  ## remove what was built; the environment stays (rm -r .venv removes it)
	rm -rf _build .pytest_cache .ruff_cache .hypothesis

# --- set-up ---------------------------------------------------------------------------------------------------------

PIP := $(PY) -m pip --disable-pip-version-check install -qq --no-compile -c constraints.txt
OFFLINE := { echo; echo "Installing failed (the lines above say why). Most often the network or the package index is" \
  "out of reach: check it, then run the same command again; what is installed already is kept." \
  "A damaged environment is mended by: rm -r $(VENV)"; exit 1; }

# torch comes first and by itself, so that a CPU build can come from an index of its own.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is missing or older than 3.11." \
	  "Name a newer one: make book PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "No virtual environment could be made." \
	  "Debian, Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "Installing into $(VENV): some minutes the first time, about 1.5 GB."
	@$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) --no-deps torch || $(OFFLINE)
	@$(PIP) flit_core || $(OFFLINE)
	@$(PIP) --no-build-isolation -e '.[book,test]' || $(OFFLINE)
	@touch $@

$(VENV)/.%: $(READY)
	@$(PIP) --no-build-isolation -e '.[$*]' || $(OFFLINE)
	@touch $@

# --- pages ----------------------------------------------------------------------------------------------------------

$(PAGES): $(READY) $(SOURCES) _build/.repo
	@rm -rf _build/html _build/.doctrees
	REPO="$(REPO)" $(VENV)/bin/jupyter-book build . -W -n --keep-going --all --quiet || { echo; echo "The book has a fault:" \
	  "the warnings above name page and line."; exit 1; }
	@touch $@

# Changes only when REPO does, so that the buttons follow it.
_build/.repo: FORCE
	@mkdir -p _build && { echo '$(REPO)' | cmp -s - $@ || echo '$(REPO)' > $@; }
