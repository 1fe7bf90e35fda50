# The course, from a fresh clone: `make run-all`, then `make test`. `make` lists the rest.
# Everything Python lives in .venv, which is made here and may be deleted at any time.

PROFILE   ?= demo
DATA_ROOT ?=
LIMIT     ?=
J         ?= 1
NOTEBOOKS ?=
NAMES     ?=
PIP_ARGS  ?=
PYTHON    ?=
LAUNCH    ?= $(BIN)/python
LAB_ARGS  ?=

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/installed
# What the packages take, in GiB: on Linux, PyTorch brings the CUDA libraries along.
DISK_GIB ?= $(if $(filter Linux,$(shell uname -s)),10,4)

quoted   = $(if $($(2)),$(1) "$($(2))")
OPTIONS  = --profile "$(PROFILE)" $(call quoted,--data-root,DATA_ROOT) \
           $(call quoted,--limit,LIMIT) --jobs "$(J)" $(NOTEBOOKS)
RUN      = $(BIN)/python -m helpers.runner

.PHONY: help run-all test lab data compute refresh bench clean broken
.DEFAULT_GOAL := help

help: ## list what make can do
	@echo "make run-all && make test do everything. What there is:"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-16s %s\n", $$1, $$2 }'
	@echo
	@echo "Settings, as in: make run-all PROFILE=photos DATA_ROOT=~/datasets LIMIT=50"
	@echo
	@echo "  PROFILE=demo     demo, photos or paper"
	@echo "  DATA_ROOT=       the folder with the photographs"
	@echo "  LIMIT=           use at most so many images"
	@echo "  J=1              notebooks running at once"
	@echo "  NOTEBOOKS=       only these, as in NOTEBOOKS=\"00 04\""
	@echo "  NAMES=           the sets that make data downloads"
	@echo "  PYTHON=          the Python that makes .venv (3.11 or newer; found by itself)"
	@echo "  PIP_ARGS=        handed to pip install, for another index or a proxy"
	@echo "  LAB_ARGS=        handed to JupyterLab, as in LAB_ARGS=--no-browser"
	@echo "  LAUNCH=          what starts make compute; one process so far"

run-all: $(STAMP) ## run every notebook and write the report
	@$(RUN) $(OPTIONS)

# Every part runs even if an earlier one failed. What failed is said last.
test: $(STAMP) ## check the code, the notebooks and their outputs
	@failed=; \
	part() { \
	  echo; echo "== $$1"; shift; \
	  $(BIN)/python -m "$$@" || failed="$$failed$$(printf '\n  python -m %s' "$$*")"; \
	}; \
	part "lint" ruff check; \
	part "format" ruff format --check; \
	part "unit and contract tests" pytest $(PYTEST_ARGS); \
	part "notebooks, executed and compared with their committed outputs" \
	  pytest --nbval-lax --nbval-current-env --nbval-cell-timeout 7200 \
	  --nbval-sanitize-with tests/nbval_sanitize.cfg --ignore=notebooks/exercises notebooks; \
	part "widgets, in JupyterLab in Chromium" pytest tests/browser; \
	echo; \
	if [ -n "$$failed" ]; then echo "FAILED:$$failed"; exit 1; fi; \
	echo "All passed."

# .jupyter adds one default to those of JupyterLab: Markdown opens as a page, not as its source.
lab: $(STAMP) ## open the syllabus and the notebooks in JupyterLab
	@JUPYTER_CONFIG_PATH="$(CURDIR)/.jupyter$${JUPYTER_CONFIG_PATH:+:$$JUPYTER_CONFIG_PATH}" \
	  $(BIN)/python -m jupyterlab --ServerApp.root_dir="$(CURDIR)" \
	  --LabApp.default_url=/lab/tree/notebooks/README.md $(LAB_ARGS)

data: $(STAMP) ## download the public photographs
	@$(BIN)/python -m helpers.photos $(call quoted,--data-root,DATA_ROOT) $(NAMES)

compute: $(STAMP) ## only do the expensive computations, under LAUNCH
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(LAUNCH) -m helpers.runner --compute $(OPTIONS)

refresh: $(STAMP) ## write the demo's outputs into the notebooks, to be committed
	@$(RUN) --refresh --jobs "$(J)" $(NOTEBOOKS)

bench: $(STAMP) ## measure speed
	@set -e; for script in tests/bench/bench_*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

clean: ## delete results and caches; keeps .venv and downloaded data
	rm -rf results .pytest_cache .ruff_cache .hypothesis *.egg-info
	find helpers tests notebooks \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

# ---- installing ----

# A .venv whose Python is gone (the system's was upgraded, the folder was copied) is made anew.
ifeq ($(wildcard $(BIN)/python),)
$(STAMP): broken
endif

# The stamp is written last and removed first: without it the last install did not finish, and .venv
# is made anew, because half a package looks to pip like a whole one.
$(STAMP): pyproject.toml
	@set -e; \
	say() { echo "make: $$*" >&2; }; \
	if [ ! -e $(STAMP) ] || [ ! -x $(BIN)/python ]; then \
	  python=; \
	  for candidate in $(if $(PYTHON),"$(PYTHON)",python3 python python3.14 python3.13 python3.12 python3.11); do \
	    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	    then python="$$candidate"; break; fi; \
	  done; \
	  if [ -z "$$python" ]; then \
	    say "no Python 3.11 or newer found$(if $(PYTHON), at $(PYTHON))."; \
	    say "Install one (python.org, your package manager, conda) or say where it is:"; \
	    say "  make run-all PYTHON=/path/to/python3"; \
	    exit 1; \
	  fi; \
	  if ! "$$python" -c 'import venv, ensurepip' 2>/dev/null; then \
	    say "$$python has no venv module, which makes .venv."; \
	    say "On Debian and Ubuntu: sudo apt install python3-venv"; \
	    exit 1; \
	  fi; \
	  if [ -e $(VENV) ]; then say "the last install did not finish: starting .venv anew"; rm -rf $(VENV); fi; \
	  free=$$(df -Pk . | awk 'NR == 2 { print int($$4 / 1048576) }'); \
	  if [ "$$free" -lt $(DISK_GIB) ]; then \
	    say "$$free GiB of disk are free here; the packages need about $(DISK_GIB)."; \
	    say "Free some, or take PyTorch's smaller CPU build (see README.md) and say DISK_GIB=3."; \
	    exit 1; \
	  fi; \
	  say "making .venv and installing the packages: some minutes, this once"; \
	  "$$python" -m venv $(VENV); \
	else \
	  say "pyproject.toml has changed: updating .venv"; \
	  rm -f $(STAMP); \
	fi; \
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) -e '.[test]' || { \
	  say "installing failed; the reason stands above. Offline? Behind a proxy? See README.md."; \
	  exit 1; \
	}; \
	touch $(STAMP)
