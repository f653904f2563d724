# Needs make and Python 3.11 or later, nothing else. `make help` lists the targets.

SHELL := /bin/sh
VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
# The versions in constraints.txt were settled on 3.11, so it comes first; PYTHON=... chooses another.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	if $$p -c '$(NEW_ENOUGH)' 2>/dev/null; then echo $$p; break; fi; done)
BENCHMARKS := $(filter-out benchmarks/_% benchmarks/record_% benchmarks/fuzz_% benchmarks/gpu_%,$(sort $(wildcard benchmarks/*.py)))

.DEFAULT_GOAL := help
.PHONY: help install demo check test test-fast coverage test-readers docs wheel nightly bench gpu-check fuzz peers nnunet-peers \
	nnunet-compare totalsegmentator-peers training-cv training-curves training-steps clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name what; do \
		printf '  make %-22s %s\n' "$$name" "$$what"; done

install: $(INSTALLED)  ## make .venv with everything that the other targets need

$(INSTALLED): pyproject.toml constraints.txt
	@echo "Installing into $(VENV): about two minutes"
	@if [ ! -x $(RUN) ]; then \
		if [ -z "$(PYTHON)" ] || ! $(PYTHON) -c '$(NEW_ENOUGH)'; then \
			echo "volseg needs Python 3.11 or later; found: $$($(or $(PYTHON),python3) --version 2>/dev/null || echo none)." \
				"Install it, or name it: make install PYTHON=/path/to/python3.11" >&2; exit 1; fi; \
		$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }; fi
# Compiling every module of every library takes half of the time; Python compiles those that are used when they are.
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-compile \
		--constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: install  ## segment the study in sample_data with the bundled model
	@rm -rf demo_output
	$(RUN) -m volseg inspect sample_data/study
	@start=$$(date +%s); \
		echo "$(RUN) -m volseg predict sample_data/study -o demo_output --model hippocampus"; \
		$(RUN) -m volseg predict sample_data/study -o demo_output --model hippocampus || exit; \
		echo; echo "Segmented in $$(($$(date +%s) - start)) s. The masks and the pictures:"
	@find demo_output -type f \( -name 'mask.*' -o -name preview.png \) | sort | sed 's/^/  /'

check: install  ## ruff and mypy
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# A process a core, and no more than memory is likely to hold; a file's tests stay in one, which makes its fixtures once.
PARALLEL := --numprocesses logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

test: check  ## check, and every test that needs Python alone
	$(RUN) -m pytest $(PARALLEL) -m "not readers"

test-fast: install  ## the tests that take less than 5 seconds each, for the loop while working
	$(RUN) -m pytest $(PARALLEL) -m "not readers and not slow"

coverage: install  ## every test that needs Python alone, and the share of lines that they run; its floor is in pyproject.toml
	$(RUN) -m pytest $(PARALLEL) -m "not readers" --cov --cov-report=term:skip-covered

test-readers: install  ## tests against other people's readers, installed from Debian
	bash .ci/readers
	$(RUN) -m pytest -m readers

docs: install  ## the documentation as a site, in site/
	$(RUN) -m docs.make_site

# The new environment gets what a user gets: the wheel and its dependencies, nothing of the checkout.
wheel: install  ## build dist/, and segment the sample study with the wheel in an environment of its own
	rm -rf dist build/wheel
	$(RUN) -m build --outdir dist
	$(RUN) -m venv build/wheel
	build/wheel/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt dist/*.whl
	cd build/wheel && bin/volseg predict ../../sample_data/study/mr -o output --model hippocampus

SEED ?= 1
nightly: install nnunet-peers peers  ## what takes an hour: damaged files of another SEED, and the peers
	$(RUN) -m benchmarks.fuzz_loaders --inputs 100000 --seed $(SEED)
	$(RUN) -m benchmarks.geometry.table -o build/table.md
	$(MAKE) nnunet-compare

gpu-check: install  ## on a machine with a GPU: does it compute what the CPU does, and how fast; below eight minutes
	$(RUN) -m benchmarks.gpu_check

bench: install  ## measure what the README claims
	@test -n "$(BENCHMARKS)" || { echo "no benchmarks/*.py" >&2; exit 1; }
	@for script in $(BENCHMARKS); do echo "== $$script"; $(RUN) -m "benchmarks.$$(basename "$$script" .py)" || exit; done

peers: install  ## make .venv-peers with dicom2nifti and dcm2niix, for benchmarks/geometry
	@test -x .venv-peers/bin/python || $(RUN) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -r benchmarks/peers.txt

nnunet-peers: install  ## make .venv-nnunet with nnunetv2, for benchmarks/record_*.py
	@test -x .venv-nnunet/bin/python || $(RUN) -m venv .venv-nnunet
	.venv-nnunet/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -r benchmarks/nnunet.txt

totalsegmentator-peers: install  ## make .venv-totalseg with TotalSegmentator, for benchmarks/
	@test -x .venv-totalseg/bin/python || $(RUN) -m venv .venv-totalseg
	.venv-totalseg/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps \
		-r benchmarks/totalsegmentator.txt

nnunet-compare: nnunet-peers  ## models of each kind, made and run by nnunetv2 now, against volseg: some minutes
	$(RUN) -m tests.helpers.nnunet_suite --live

# About two hours each; they go on where they were stopped. See benchmarks/training/README.md.
training-cv: install  ## five-fold cross-validation, 30 minutes a fold: DATA=MSD_TASK04 OUT=FOLDER
	$(RUN) -m benchmarks.training.cross_validation "$(DATA)" -o "$(OUT)"

training-curves: nnunet-peers  ## Dice against minutes, volseg and nnunetv2: DATA=MSD_TASK04 OUT=FOLDER
	$(RUN) -m benchmarks.training.curves "$(DATA)" -o "$(OUT)"

training-steps: nnunet-peers  ## a training step of volseg and of nnunetv2: some minutes
	$(RUN) -m benchmarks.training.step

# The guided fuzzer stays out of .venv: nothing else needs it.
fuzz: install  ## damaged files against the loaders, guided by coverage
	@test -x .venv-fuzz/bin/python || $(RUN) -m venv .venv-fuzz
	@.venv-fuzz/bin/python -m pip install --quiet --disable-pip-version-check atheris==3.0.0
	@packages=$$($(RUN) -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
		echo "import site; site.addsitedir('$$packages')" \
		> "$$(.venv-fuzz/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/volseg_packages.pth"
	.venv-fuzz/bin/python -m benchmarks.fuzz_loaders --coverage --inputs 20000

clean:  ## remove what the other targets made, .venv and runs/ excepted
	rm -rf build dist site demo_output .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find volseg tests sample_data benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
