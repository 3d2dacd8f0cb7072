SHELL := bash
.DEFAULT_GOAL := help

PROJECT ?= balloon
PYTHON ?= python3
VENV ?= .venv
# Any pip requirement (name, URL, wheel, or folder with a checkout) instead of the Detectron2 0.6 that d2tune builds.
DETECTRON2 ?=
# The downloaded sdist of that Detectron2, where there is no package index.
SDIST ?=
# Passed on to the underlying command, for example ARGS="train.iterations=500".
ARGS ?=
# What `make predict` looks at: an image or a folder; without it, the project's validation photos.
SRC ?=
# The folder that `make new` looks at.
DATA ?= datasets/$(PROJECT)
# How many processes run the tests and check the types.
JOBS ?= 2

YAML := projects/$(PROJECT).yaml
PY := $(VENV)/bin/python
D2TUNE := $(VENV)/bin/d2tune
READY := $(VENV)/.d2tune-ready
LABELME := .venv-labelme/bin/labelme
CONSTRAINTS := d2tune/install/constraints.txt

# pip shows its progress on a terminal and is quiet elsewhere. Python compiles what it imports; all of torch would take
# half a minute. What is compiled is kept, also where the environment says otherwise: without it each process that
# imports torch and Detectron2 takes more than twice as long to start.
unexport PYTHONDONTWRITEBYTECODE
PIP_INSTALL = quiet=; [ -t 1 ] || quiet=--quiet; set -x; "$$python" -m pip install --no-compile $$quiet

.PHONY: help setup doctor new annotate data convert train evaluate predict demo app docs browser encoder test test-all gpu lint clean FORCE

help:  ## list these targets
	@echo "make TARGET [PROJECT=balloon] [ARGS=...]"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY)  ## build .venv with everything in it (DETECTRON2=requirement for another Detectron2)

ifneq ($(DETECTRON2)$(SDIST),)
$(READY): FORCE
endif

$(READY): $(PY) pyproject.toml setup.py $(CONSTRAINTS) $(wildcard d2tune/install/*.py)
	@python="$(PY)"; $(PIP_INSTALL) --constraint $(CONSTRAINTS) pip setuptools wheel
	@python="$(PY)"; $(PIP_INSTALL) --constraint $(CONSTRAINTS) --no-build-isolation --editable ".[dev]"
	@# what Detections.to_supervision is tested with; its dependency PyAV brings codecs under the GPL, and is not imported
	@python="$(PY)"; $(PIP_INSTALL) --constraint $(CONSTRAINTS) --no-deps supervision
	@# slices of a head, which tests read from the files of nilearn without its code
	@python="$(PY)"; $(PIP_INSTALL) --constraint $(CONSTRAINTS) --no-deps nilearn
	@# the extra trackio, which is tested with Pillow 13, while its own metadata asks for an earlier one
	@python="$(PY)"; $(PIP_INSTALL) --constraint $(CONSTRAINTS) --no-deps trackio
	$(D2TUNE) setup $(if $(DETECTRON2),--requirement "$(DETECTRON2)") $(if $(SDIST),--sdist "$(SDIST)")
	@touch $@

$(PY):
	@newest=; \
	for candidate in "$(PYTHON)" python3.14 python3.13 python3.12 python3.11; do \
	  version=$$("$$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue; \
	  newest="$${newest:-$$candidate is Python $$version}"; \
	  "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || continue; \
	  if ! "$$candidate" -c 'import venv, ensurepip' 2>/dev/null; then \
	    echo "error: $$candidate (Python $$version) has no venv module. Install it (Debian, Ubuntu: sudo apt install python$$version-venv) and run make again" >&2; \
	    exit 1; \
	  fi; \
	  echo "$$candidate -m venv $(VENV)  # Python $$version"; \
	  "$$candidate" -m venv "$(VENV)"; \
	  exit; \
	done; \
	echo "error: Python 3.11 or newer is needed, but $${newest:-there is no $(PYTHON)}. Install one (Debian, Ubuntu: sudo apt install python3 python3-venv; macOS: brew install python) and name it: make setup PYTHON=python3.12" >&2; \
	exit 1

doctor: $(READY)  ## say what is installed and what this machine can do
	$(D2TUNE) doctor

new: $(READY)  ## write projects/PROJECT.yaml for the photos in datasets/PROJECT (DATA=another folder)
	$(D2TUNE) new $(PROJECT) --data $(DATA) $(ARGS)

annotate: $(READY) $(LABELME)  ## draw polygons in Labelme, with the project's labels
	$(D2TUNE) annotate $(YAML) $(ARGS)

# Labelme has an environment of its own: it brings Qt, and its license is the GPL.
$(LABELME): $(PY)
	$(PY) -m venv .venv-labelme
	@python=.venv-labelme/bin/python; $(PIP_INSTALL) "labelme>=6.3,<8"

data: $(READY)  ## fetch the project's public photos and check them
	$(D2TUNE) data $(YAML) $(ARGS)

convert: $(READY)  ## turn the project's annotations into COCO files
	$(D2TUNE) convert $(YAML) $(ARGS)

train: $(READY)  ## fine-tune, evaluate and show images
	$(PY) tools/train_net.py --config $(YAML) $(ARGS)

evaluate: $(READY)  ## score the project's latest run again
	$(D2TUNE) eval $(YAML) $(ARGS)

predict: $(READY)  ## run the project's latest model on SRC=image or folder
	$(D2TUNE) predict $(YAML) $(SRC) $(ARGS)

demo: $(READY)  ## the whole journey on rendered photos, in under 15 minutes
	[ -e datasets/demo ] || [ -e datasets/demo-sample ] || $(D2TUNE) sample balloon --out datasets/demo-sample --images 120
	$(D2TUNE) convert projects/demo.yaml
	$(D2TUNE) train projects/demo.yaml $(ARGS)

app: $(READY)  ## compare two models on one image in a browser (ARGS="fcn_resnet50 RUN --images FOLDER")
	$(VENV)/bin/streamlit run apps/compare_streamlit.py -- $(ARGS)

docs: $(READY)  ## build the documentation site in build/site, offline
	$(PY) -m tools.docs_site

# The page that `d2tune check --report` writes is looked at in a real browser.
browser:
	@for name in chromium chromium-browser google-chrome google-chrome-stable; do \
	  if command -v "$$name" >/dev/null; then exit; fi; \
	done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  set -ex; apt-get update; apt-get install -y --no-install-recommends chromium; \
	else \
	  echo "error: the tests look at a page in a browser, and there is none. Install one (Debian: sudo apt install chromium) and run make again" >&2; \
	  exit 1; \
	fi

# Videos of codecs that OpenCV does not write are encoded by the program ffmpeg.
encoder:
	@if command -v ffmpeg >/dev/null; then exit; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  set -ex; apt-get update; apt-get install -y --no-install-recommends ffmpeg; \
	else \
	  echo "error: the tests read videos that ffmpeg encodes, and it is not there. Install it (Debian: sudo apt install ffmpeg) and run make again" >&2; \
	  exit 1; \
	fi

# Labelme's environment is built beside the other one, half a minute faster than after it.
LINT_AND_LABELME = @$(MAKE) --jobs=2 lint $(LABELME)
PYTEST = OMP_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

test: browser encoder  ## lint, then the tests, in under 20 minutes on two cores
	$(LINT_AND_LABELME)
	$(PYTEST) -m "not gpu and not extended" $(ARGS)

test-all: browser encoder  ## those, and long fuzzing, simulations and real sizes
	$(LINT_AND_LABELME)
	$(PYTEST) -m "not gpu" $(ARGS)

gpu: $(READY)  ## tests and benchmarks on a CUDA GPU, in under 9 minutes
	@$(PY) -c "import sys, torch; torch.cuda.is_available() or sys.exit('error: torch finds no CUDA GPU here; make test runs all other tests')"
	$(PY) -m pytest -m gpu $(ARGS)
	$(PY) benchmarks/gpu.py

lint: $(READY)  ## style, format, types and import rules
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy --num-workers $(JOBS)
	$(VENV)/bin/lint-imports
	@! command -v shellcheck >/dev/null || shellcheck deploy/install.sh deploy/slurm/train.sbatch

clean:  ## remove caches and build output; keeps .venv, datasets and runs
	rm -rf build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find d2tune tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
