# Thin by design: the Snakefile knows the study, data_scripts/ does the work.
# `PY=python make ...` uses the current environment instead of .venv.
BOOTSTRAP ?= $(shell command -v python3.11 || command -v python3)
PROFILE ?= demo
CORES ?= all
DEVICE ?= cpu
NUMBER ?= $(or $(N),5)
PORT ?= 8000
CLUSTER ?= profiles/slurm
ANOMALIB := .venv-anomalib/bin/python

ifdef DATA
export ANOMALY_DATA_ROOT := $(abspath $(DATA))
endif
$(if $(strip $(PROFILE)),,$(error PROFILE is empty; name one of profiles/, or leave it out))

SITE := _build/$(if $(filter-out demo,$(PROFILE)),$(PROFILE)/)html

ifdef PY
PYTHON := $(PY)
ENV :=
else
PYTHON := .venv/bin/python
ENV := .venv/complete
endif

.DEFAULT_GOAL := help
.PHONY: help env book full cluster test test-gpu bench anomalib bench-memory bench-training ablations check-records weights show-features clear-features pretrain serve dist class clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F '\t' '{printf "  make %-14s %s\n", $$1, $$2}'

env: $(ENV)  ## install the tested versions into .venv

.venv/complete: pyproject.toml constraints.txt
	@$(or $(BOOTSTRAP),$(error no python3 found; install Python 3.11)) data_scripts/make_env.py

book: $(ENV)  ## run the study and build the site into _build/html (PROFILE=demo, CORES=all)
	@$(PYTHON) data_scripts/study.py --profile $(PROFILE) --cores $(CORES)

full: $(ENV)  ## the whole book on real data into _build/<profile>/html (PROFILE=mvtec3d, DATA=folder)
	@$(if $(filter demo,$(PROFILE)),$(error name the real data: make full PROFILE=mvtec3d DATA=folder)) \
		$(PYTHON) data_scripts/study.py --profile $(PROFILE) --cores $(CORES)

cluster: $(ENV)  ## the same on a SLURM cluster (PROFILE=mvtec3d, CLUSTER=profiles/slurm)
	@$(PYTHON) data_scripts/study.py --profile $(PROFILE) --cluster $(CLUSTER)

test: $(ENV)  ## ruff, then the tests
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m pytest -q

test-gpu: $(ENV)  ## the tests that need a GPU
	@$(PYTHON) -m pytest -q -m gpu tests/gpu

bench: $(ENV)  ## speed beside other programs, as a table of ratios (THREADS=2; after make anomalib: beside it too)
	@$(PYTHON) -m benchmarks.run $(if $(THREADS),--threads $(THREADS)) \
		$(if $(wildcard .venv-anomalib/complete),--anomalib $(ANOMALIB)) $(if $(OUTPUT),--output $(OUTPUT))

anomalib: .venv-anomalib/complete  ## install anomalib into an environment of its own, for make bench

.venv-anomalib/complete: benchmarks/anomalib.txt
	@$(or $(BOOTSTRAP),$(error no python3 found; install Python 3.11)) -m venv --clear .venv-anomalib
	@$(ANOMALIB) -m pip --disable-pip-version-check install --quiet -r benchmarks/anomalib.txt
	@touch $@

bench-memory: $(ENV)  ## time and memory of LSFA and memory banks at the papers' sizes (DEVICE=cpu)
	@$(PYTHON) data_scripts/bench.py --device $(DEVICE)

bench-training: $(ENV)  ## our training loop beside the released one's (DEVICE=cpu)
	@$(PYTHON) data_scripts/bench_training.py --device $(DEVICE) $(if $(filter cuda,$(DEVICE)),--samples 240,--samples 4 --batch-size 2)

ablations: $(ENV)  ## remake the curated ablation records in results/ (NAMES="lsfa*": only these; MISSING=1: what is not there yet; STALE=1: and what other code, data or versions made)
	@$(PYTHON) data_scripts/ablations.py remake --profile $(PROFILE) --names "$(or $(NAMES),*)" $(if $(MISSING),--missing) $(if $(STALE),--stale)

check-records: $(ENV)  ## recompute N=5 curated experiments drawn at random and compare
	@$(PYTHON) data_scripts/ablations.py check --profile $(PROFILE) --number $(NUMBER)

weights: $(ENV)  ## download the papers' weights named in NAMES, or list them all
	@$(PYTHON) data_scripts/get_weights.py $(or $(NAMES),--list)

show-features: $(ENV)  ## space that the cached features of a profile take
	@$(PYTHON) data_scripts/feature_cache.py show --profile $(PROFILE)

clear-features: $(ENV)  ## delete the cached features of a profile
	@$(PYTHON) data_scripts/feature_cache.py clear --profile $(PROFILE)

pretrain: $(ENV)  ## train the embedded networks again, about half an hour each on one core
	@$(PYTHON) data_scripts/pretrain.py rgb
	@$(PYTHON) data_scripts/pretrain.py xyz

serve: $(ENV)  ## show the built site at localhost, PORT=8000
	@test -f $(SITE)/index.html || { echo "$(SITE) holds no site; run make $(if $(filter demo,$(PROFILE)),book,full PROFILE=$(PROFILE)) first" >&2; exit 1; }
	@$(PYTHON) -m http.server $(PORT) --bind 127.0.0.1 --directory $(SITE)

dist: $(if $(filter demo,$(PROFILE)),book,full)  ## zip the site to dist/book.zip
	@$(PYTHON) data_scripts/pack_site.py $(SITE) dist/book.zip

class: $(ENV)  ## notebooks without solutions for a class, into dist/class
	@$(PYTHON) data_scripts/make_class_notebooks.py --target dist/class

clean:  ## remove all that a profile's run has made; results/, dist/class and .venv stay
	rm -rf $(SITE) runs/$(PROFILE) $(if $(filter demo,$(PROFILE)),dist/book.zip book/chapters .snakemake)
