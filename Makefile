# Every target makes what it needs inside this folder, from a bare python3 (3.11 or newer).
PYTHON ?= python3
MODEL ?= examples/digits/plain.yaml
TIER ?=
SECONDS ?= 600
TARGETS ?=
NAME ?= penstock
ARGS ?=

BIN := .venv/bin
PY := $(BIN)/python
PIP := $(BIN)/uv pip

# Trust what the machine trusts, as pip does: behind a proxy uv's own list of authorities is not enough.
export UV_SYSTEM_CERTS ?= 1

PROTOS = $(shell find serving -name '*.proto')
protoc = $(PY) -m grpc_tools.protoc --proto_path=$(dir $(1)) --descriptor_set_out=$(2) $(1)

TOOLCHAINS := serving/variants/toolchains

# A stamp says which lock the environment holds; it is remade when that lock changes.
BOOTSTRAP := .venv/.bootstrap
LOCAL := .venv/.local
DEV := .venv/.dev

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup up test fuzz cluster cluster-images cluster-down check bench images lock crds charts manifests scan descriptors clean \
        check-format check-lint check-types check-layers check-spelling lock-check crds-check charts-check descriptors-check

help:  ## Say what the targets do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(DEV)  ## Make .venv with everything a developer needs

up: $(LOCAL)  ## Serve MODEL=examples/digits/plain.yaml on this machine, in the foreground (ARGS="--port 8088")
	$(BIN)/penstock up $(MODEL) $(ARGS)

test: $(DEV)  ## Run every test tier this machine can run (TIER="unit local" for some of them)
	$(PY) -m tests.tiers $(TIER)

fuzz: $(DEV)  ## Search every parser for what breaks it (SECONDS=3600 in total; Linux on x86-64)
	$(PY) -m tests.fuzz --seconds $(SECONDS) $(TARGETS)

cluster: $(DEV)  ## Start a throw-away Kubernetes on this machine, as root and without Docker (NAME=penstock)
	$(PY) -m tests.rig.node up --name $(NAME)

cluster-images: $(DEV)  ## Build the container images and bring them there
	$(PY) -m tests.rig.node images --name $(NAME)

cluster-down: $(DEV)  ## Remove it, and everything it left
	$(PY) -m tests.rig.node down --name $(NAME)

check: check-format check-lint check-types check-layers check-spelling lock-check crds-check charts-check descriptors-check  ## Format, lint, types, layers, spelling, drift of what is generated

bench: $(DEV)  ## Measure Penstock beside its peers (ARGS="--peers triton,kserve --rounds 3")
	$(PY) -m benchmarks peers $(ARGS)

images: $(DEV)  ## Build the container images into build/images, as root on Debian (ARGS="serve router --base IMAGE")
	@$(PY) -m images $(ARGS)

lock: $(BOOTSTRAP)  ## Resolve pyproject.toml into requirements/ (UPGRADE=1: to the newest versions)
	requirements/compile . $(if $(UPGRADE),--upgrade)

crds: $(DEV)  ## Write manifests/crds from operators/api
	$(BIN)/penstock crds manifests/crds

charts: $(DEV)  ## Write values, schemas, references and definitions of helm/ from helm/values.py and operators/api
	$(PY) -m helm.writing

manifests: $(DEV)  ## Render manifests/install.yaml (the first time it builds kubectl, where KUBEBUILDER_ASSETS has none)
	$(PY) -m tests.rig.rendering

scan: $(DEV)  ## Look for what is unsafe in manifests and Containerfiles, with checkov (.checkov.yaml says what may stay)
	@files=$$(mktemp -d) && trap 'rm -rf "$$files"' EXIT && cp manifests/install.yaml "$$files" \
	  && for image in images/*.Containerfile; do \
	    mkdir "$$files/$$(basename $$image)" && cp $$image "$$files/$$(basename $$image)/Dockerfile"; done \
	  && $(BIN)/uvx --quiet --from checkov==3.3.30 checkov --config-file .checkov.yaml --directory "$$files" \
	    --framework kubernetes dockerfile --skip-download

descriptors: $(DEV)  ## Compile the .proto files of serving/ into the descriptor sets beside them
	$(foreach proto,$(PROTOS),$(call protoc,$(proto),$(proto:.proto=.binpb)) &&) true

clean:  ## Remove caches and build output (.venv stays)
	rm -rf build dist .cache .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find serving operators benchmarks tests examples -name __pycache__ -type d -exec rm -rf {} +

check-format: $(DEV)
	$(BIN)/ruff format --check --quiet .

check-lint: $(DEV)
	$(BIN)/ruff check --quiet .

check-types: $(DEV)
	$(BIN)/mypy

check-layers: $(DEV)
	$(BIN)/lint-imports

check-spelling: $(DEV)
	$(BIN)/codespell

lock-check: $(BOOTSTRAP)
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && mkdir -p $$fresh/requirements $$fresh/$(TOOLCHAINS) \
	  && cp pyproject.toml $$fresh/ && cp requirements/dev.txt $$fresh/requirements/ \
	  && cp $(TOOLCHAINS)/*.in $(TOOLCHAINS)/*.txt $$fresh/$(TOOLCHAINS) \
	  && requirements/compile $$fresh && diff -ru --exclude=compile requirements $$fresh/requirements \
	  && diff -u $(TOOLCHAINS)/torch.txt $$fresh/$(TOOLCHAINS)/torch.txt \
	  && diff -u $(TOOLCHAINS)/sklearn.txt $$fresh/$(TOOLCHAINS)/sklearn.txt \
	  && diff -u $(TOOLCHAINS)/litert.txt $$fresh/$(TOOLCHAINS)/litert.txt \
	  && diff -u $(TOOLCHAINS)/triton.txt $$fresh/$(TOOLCHAINS)/triton.txt \
	  && echo "locks: requirements/ agrees with pyproject.toml" \
	  || { echo "locks: requirements/ does not follow from pyproject.toml; run 'make lock' and commit the result" >&2; exit 1; }

crds-check: $(DEV)
	$(BIN)/penstock crds --check manifests/crds

charts-check: $(DEV)
	$(PY) -m helm.writing --check

descriptors-check: $(DEV)
	@$(foreach proto,$(PROTOS),$(call protoc,$(proto),/dev/stdout) | cmp - $(proto:.proto=.binpb) \
	  || { echo "descriptors: $(proto:.proto=.binpb) is stale; run 'make descriptors' and commit it" >&2; exit 1; };) \
	echo "descriptors: current"

$(BOOTSTRAP): requirements/bootstrap.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Penstock needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments: it lacks the modules venv and ensurepip." >&2; \
	  echo "On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Making .venv"
	@$(PYTHON) -m venv .venv
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $<
	@touch $@

$(LOCAL): requirements/local.txt pyproject.toml | $(BOOTSTRAP)
	@echo "Installing $< into .venv"
	@$(PIP) install --python $(PY) --quiet --require-hashes --requirement $<
	@$(PIP) install --python $(PY) --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): requirements/dev.txt pyproject.toml | $(BOOTSTRAP)
	@echo "Installing $< into .venv"
	@$(PIP) sync --python $(PY) --quiet --require-hashes $<
	@$(PIP) install --python $(PY) --quiet --no-deps --no-build-isolation --editable .
	@touch $(LOCAL) $@
