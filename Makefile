# The commands of this project; `make` alone lists them. PYTHON names the interpreter to build on.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# One thread a worker: torch's own threads would fight over the same cores.
WORKERS ?= logical

.DEFAULT_GOAL := help
.PHONY: help install native demo test check format docs clean

help: ## List these targets.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## Create .venv with everything in it, at the versions of constraints.txt.

# Torch comes first and alone: with its version pinned, pip finds a CPU build where there is one.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Flyweight needs Python 3.11 or newer: make install PYTHON=python3.12" >&2; exit 1; }
	@echo "Creating $(VENV) and installing; this takes a few minutes the first time."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint constraints.txt torch
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev,eval,onnx,openvino]'
	@touch $@

# Scoring and constraints need llguidance inside the binding, which its build fetches by itself.
native: $(INSTALLED) ## Build llama.cpp for this processor; where that fails the wheel stays.
	@echo "Building llama.cpp for this processor: ten minutes or more on two cores."
	@CMAKE_ARGS=-DLLAMA_BUILD_BORINGSSL=OFF $(BIN)/python -m pip install --quiet --no-deps \
		--constraint constraints.txt --force-reinstall --no-binary xllamacpp xllamacpp \
		> $(VENV)/native.log 2>&1 \
	&& HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --quiet tests/runtime/test_engines.py \
		>> $(VENV)/native.log 2>&1 \
	&& echo "Done: engines use it from now on." \
	|| { $(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt \
		--force-reinstall --only-binary xllamacpp xllamacpp; \
		echo "It did not build, or does not pass the engines' tests: the wheel is used, as before."; \
		echo "Why: $(VENV)/native.log. It needs a C++ compiler, cmake, cargo, git and internet."; }

demo: $(INSTALLED) ## Shrink the embedded teacher to its task, into out/demo.
	@mkdir -p out
	@$(BIN)/python -m flyweight.demo out/demo-task.jsonl
	@$(BIN)/flyweight make src/flyweight/demo/teacher --task out/demo-task.jsonl --bar 0.93 \
		--effort quick --out out/demo

test: $(INSTALLED) ## Run the tests.
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest \
		--numprocesses $(WORKERS) --maxprocesses 8 --durations 5 --durations-min 5

check: $(INSTALLED) ## Format, lint, types, direction of imports, and that the reference is current.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

format: $(INSTALLED) ## Put the code into its one format and fix what can be fixed.
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

docs: $(INSTALLED) ## Write the reference anew from the code.
	$(BIN)/python docs/generate.py

clean: ## Remove what can be made again, except .venv.
	rm -rf out build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests docs benchmarks -name __pycache__ -type d -exec rm -rf {} +
