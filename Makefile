# One entry point for everything; `make` alone lists the targets.
# The environment is a stamp file that depends on pyproject.toml and constraints.txt, so it follows them by itself.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OUTPUT ?= outputs/demo
# two processes, a file each at a time, in the order of conftest.py; fixtures of a file are made once
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder
# of `make mutation`: what is changed (all groups where empty), for how long, and the seed of the choice
MUTATION_GROUPS ?=
MUTATION_SECONDS ?= 1800
MUTATION_SEED ?= 0
# processes that tests start compile our modules once, also where the environment says that nothing is kept
unexport PYTHONDONTWRITEBYTECODE
DEMO_ARGS ?=
# of `make bench`: --preset toy, --only steps metric, --output FILE
BENCH_ARGS ?=
ATTACK_SECONDS ?= 300
ATTACK_SEED ?= 0
# such as --from 2000 --from-kill 40, to go on where a run of this seed ended; --only evaluate
ATTACK_ARGS ?=
# Variables by which the libraries take the kernels of a processor with AVX2 only: torch's own, oneDNN, MKL, OpenBLAS
# (numpy, scipy) and numpy's loops. tests/test_tolerances.py asks each of them whether it did.
AVX2_ONLY := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 OPENBLAS_CORETYPE=Haswell \
  NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL AVX512_SPR"

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z][a-z-]*:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# torch goes first and pinned: pip then settles on the build at hand (the CPU one where only that is offered) before
# anything else can ask for another. setuptools is pinned beside it and builds the package without a second download.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
	  || { echo "error: $(PYTHON) must be Python 3.11, 3.12 or 3.13; choose one with 'make PYTHON=python3.11 ...'" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt torch==2.13.0 setuptools
	$(BIN)/python -m pip install -c constraints.txt --no-build-isolation -e ".[dev]"
	@touch $@

.PHONY: install
install: $(STAMP) ## Create or refresh the environment in .venv

.PHONY: demo
demo: $(STAMP) ## Simulate, prepare, train, evaluate, report: everything into outputs/demo
	@$(BIN)/neural-clip demo --output-dir $(OUTPUT) $(DEMO_ARGS)

# Chromium and npm where they are missing (as root), and onnxruntime-web as web/package-lock.json pins it. Without a
# network each ends within a minute or so.
NODE_MODULES := web/node_modules/.package-lock.json
APT_GET := DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=1 -o Acquire::http::Timeout=20 \
  -o Acquire::https::Timeout=20
.PHONY: browser
browser: ## Install what the tests of pages need: Chromium (by apt-get) and onnxruntime-web (by npm)
	@missing=(); for program in chromium npm; do command -v $$program > /dev/null || missing+=($$program); done; \
	  [ $${#missing[@]} = 0 ] || \
	  { $(APT_GET) update && $(APT_GET) install --yes --no-install-recommends "$${missing[@]}"; } || \
	  { echo "error: The tests of pages need $${missing[*]}, which apt-get did not install. Install them another way," \
	  "or run 'make test' without: it skips these tests." >&2; exit 1; }
	@$(MAKE) --no-print-directory $(NODE_MODULES)

$(NODE_MODULES): web/package-lock.json
	@npm ci --prefix web --ignore-scripts --no-audit --no-fund --fetch-retries=1 --fetch-timeout=20000 || \
	  { echo "error: npm did not install onnxruntime-web into web/node_modules. Is there a network?" >&2; exit 1; }
	@touch $@

.PHONY: page
page: $(STAMP) $(NODE_MODULES) ## Write the static page into build/page, for any static file server
	$(BIN)/python scripts/make_static_page.py

.PHONY: test
test: $(STAMP) ## Run every test, those of the studies too (PYTEST_ARGS="-k losses")
	$(BIN)/python -m pytest $(PYTEST_ARGS)

.PHONY: test-fast
test-fast: $(STAMP) ## Run the tests of the package that take seconds
	$(BIN)/python -m pytest tests -m "not slow" $(PYTEST_ARGS)

.PHONY: test-numerical
test-numerical: $(STAMP) ## Run the tests of models and linear algebra as a processor with AVX2 only
	$(AVX2_ONLY) $(BIN)/python -m pytest tests -m "numerical and not slow" $(PYTEST_ARGS)

.PHONY: attack
attack: $(STAMP) ## Damage inputs and kill commands, for ATTACK_SECONDS=300 from ATTACK_SEED=0 on
	PYTHONPATH=tests $(BIN)/python -m attack.run --seconds $(ATTACK_SECONDS) --seed $(ATTACK_SEED) $(ATTACK_ARGS)

.PHONY: bench
bench: $(STAMP) ## Compare speed and memory with what the machine can do (BENCH_ARGS="--preset toy")
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/run.py $(BENCH_ARGS)

.PHONY: coverage
coverage: $(STAMP) ## Run every test and show what of the package they do not run, by line and branch
	$(BIN)/python -m pytest --cov=neural_clip --cov-branch --cov-report=term-missing:skip-covered $(PYTEST_ARGS)

.PHONY: mutation
mutation: $(STAMP) ## Change the code in one place at a time and count the changes that tests notice
	nice -n 15 $(BIN)/python scripts/mutation.py $(MUTATION_GROUPS) --seconds $(MUTATION_SECONDS) --seed $(MUTATION_SEED)

.PHONY: quality
quality: $(STAMP) ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: docs
docs: $(STAMP) ## Build the site in build/site, without a network; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.PHONY: package
package: $(STAMP) ## Build sdist and wheel, compare them with what is tracked, and try the wheel alone
	$(BIN)/python scripts/try_package.py

# Tools of their own environment, so that what is listed is what the package runs on and nothing more.
SBOM := build/sbom
# whole names: a licence that is only like one of these is looked at by a person first
LICENCES := 3-Clause BSD License;Apache 2.0;Apache 2.0 License;Apache Software License;Apache-2.0;
LICENCES := $(LICENCES)Apache-2.0 AND Apache-2.0 WITH LLVM-exception AND BSD-2-Clause AND BSD-3-Clause AND BSL-1.0 AND MIT;
LICENCES := $(LICENCES)Apache-2.0 AND CNRI-Python;Apache-2.0 AND MIT;Apache-2.0 OR BSD-2-Clause;BSD;BSD License;
LICENCES := $(LICENCES)BSD-2-Clause;BSD-3-Clause;BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0;ISC;
LICENCES := $(LICENCES)ISC License (ISCL);MIT;MIT AND PSF-2.0;MIT License;MIT-CMU;MPL-2.0;
LICENCES := $(LICENCES)MPL-2.0 AND (Apache-2.0 OR MIT);MPL-2.0 AND MIT;Mozilla Public License 2.0 (MPL 2.0);PSF-2.0;
LICENCES := $(LICENCES)Python Software Foundation License
.PHONY: sbom
sbom: $(STAMP) ## List all packages of .venv in build/sbom/sbom.json (CycloneDX), and check their licences
	$(PYTHON) -m venv $(SBOM)
	$(SBOM)/bin/python -m pip install --quiet cyclonedx-bom==7.5.0 pip-licenses==5.5.5
	$(SBOM)/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-format JSON -o $(SBOM)/sbom.json
	$(SBOM)/bin/pip-licenses --python $(BIN)/python --from=mixed --allow-only="$(LICENCES)" --summary

OLDEST := build/oldest
.PHONY: test-oldest
test-oldest: ## Run fast tests on the oldest dependencies (constraints-oldest.txt), in build/oldest
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet -c constraints-oldest.txt torch==2.13.0 setuptools
	$(OLDEST)/bin/python -m pip install --quiet -c constraints-oldest.txt --no-build-isolation -e ".[dev]"
	$(OLDEST)/bin/python -m pytest $(or $(OLDEST_TESTS),tests) -m "not slow" $(PYTEST_ARGS)

.PHONY: format
format: $(STAMP) ## Repair what ruff can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: twin
twin: $(STAMP) ## Write the simulated twins of the three corpora (PRESET=tiny|demo|full) into outputs/twin
	$(BIN)/neural-clip simulate --preset $(or $(PRESET),demo) --output-dir outputs/twin

.PHONY: calibrate
calibrate: $(STAMP) ## Fit the noise of the simulated twins again (rewrites calibration.json and latent_basis.npz)
	$(BIN)/python scripts/calibrate_twins.py

.PHONY: tiny-clip
tiny-clip: $(STAMP) ## Train the tiny CLIP again (into runs/tiny_clip/model, to be copied to targets/tiny_clip_model)
	$(BIN)/python scripts/train_tiny_clip.py --output-dir runs/tiny_clip

.PHONY: sample
sample: $(STAMP) ## Make the sample that ships again (by way of runs/sample, a quarter of an hour)
	$(BIN)/python scripts/make_sample.py --work-dir runs/sample

.PHONY: clean
clean: ## Remove the environment, caches and builds; outputs stay
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
