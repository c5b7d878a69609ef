# Thin on purpose: each target is one readable script or module. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NODES ?= 4
PROVIDER ?= local
ARGS ?=

# What one build or clone has compiled, no other compiles again.
CCACHE := $(shell command -v ccache)
ifneq ($(CCACHE),)
export CMAKE_C_COMPILER_LAUNCHER := $(CCACHE)
export CMAKE_CXX_COMPILER_LAUNCHER := $(CCACHE)
export CCACHE_BASEDIR := $(CURDIR)
export CCACHE_NOHASHDIR := yes
endif

# Python sources are used in place (editable install); C sources are compiled into the environment.
C_SOURCES := $(shell find vpp-plugin -name '*.[ch]' -o -name '*.cpp' -o -name CMakeLists.txt)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build/.packages: tools/setup/debian.sh tools/setup/debian-packages.txt
	@tools/setup/debian.sh
	@mkdir -p build && touch $@

# The installation names each module: after one is new, moved or gone, it is made again.
build/.modules: FORCE
	@mkdir -p build && find crds operator agent cli vpp-plugin -name '*.py' | sort >$@.new
	@cmp -s $@.new $@ || cp $@.new $@

.PHONY: FORCE
FORCE:

build/.environment: build/.packages build/.modules tools/setup/python.sh tools/setup/go.sh tools/setup/go.txt pyproject.toml $(C_SOURCES)
	@tools/setup/python.sh $(PYTHON) $(VENV)
	@tools/setup/go.sh $(VENV)
	@mkdir -p build && touch $@

.PHONY: build
build: build/.environment ## make the Python environment and compile the C core into it

.PHONY: demo
demo: build ## the main job on a real cluster: apply a VIP, serve requests, learn; ends with DEMO PASSED
	@$(BIN)/python -m e2e.demo $(ARGS)

.PHONY: demo-standalone
demo-standalone: build ## the same data plane and agent without Kubernetes, in network namespaces
	@$(BIN)/python -m e2e.demo_standalone $(ARGS)

.PHONY: test
test: build ## C tests under sanitizers, then Python tests; prints counts and coverage
	@tools/test.sh $(ARGS)

.PHONY: test-training
test-training: build ## tests that need PyTorch, which it installs (the extra `train`: some GB)
	@tools/test_training.sh $(ARGS)

.PHONY: e2e
e2e: build ## faults under load on a real cluster
	@tools/e2e.sh $(ARGS)

.PHONY: soak
soak: build ## random faults under load for 30 minutes, by a seed (ARGS="--seed 2 --minutes 5")
	@$(BIN)/python -m e2e.soak $(ARGS)

.PHONY: bench
bench: build ## speed and memory against their bars; writes build/bench/*.json
	@$(BIN)/python -m tools.bench $(ARGS)

.PHONY: bench-learning
bench-learning: build ## evaluate all policies in the simulator; writes docs/results (ARGS=--short: compare a part with it)
	@$(BIN)/python -m tools.bench_learning $(ARGS)

.PHONY: bench-training
bench-training: build ## train by each algorithm for minutes; writes docs/results/training (needs the extra `train`; ARGS=--measure: train nothing)
	@$(BIN)/python -m tools.bench_training $(ARGS)

.PHONY: lab
lab: build ## the same scenarios in the simulator and on real servers behind the real data plane, side by side
	@$(BIN)/python -m tools.lab $(ARGS)

.PHONY: fuzz
fuzz: build ## what comes from outside, made up by libFuzzer: packets, arena, shared memory, weights, control socket, models, VPP (SECONDS_EACH=60)
	@tools/fuzz.sh $(or $(SECONDS_EACH),60) $(ARGS)

.PHONY: lint
lint: build ## ruff, mypy, import-linter, clang-format, clang-tidy, warnings as errors, drift of generated files
	@tools/lint.sh

.PHONY: generate
generate: build ## write CRDs, RBAC, admission policy and reference pages from the models
	@$(BIN)/python -m tools.generate

.PHONY: locks
locks: ## find the newest packages for the images, and write them with their hashes to docker/locks
	@tools/locks.sh

.PHONY: docs
docs: generate ## check the documentation: generated pages are current, what it refers to is there
	@$(BIN)/python -m tools.check_docs

.PHONY: images
images: build ## build the container images (docker, podman or buildah); LOAD=1: into the nodes of the cluster
	@$(BIN)/python -m e2e.images build $(if $(LOAD),--load --provider $(PROVIDER)) $(ARGS)

.PHONY: cluster-up
cluster-up: build ## start a cluster (NODES=4 PROVIDER=local); then: . build/cluster/env
	@$(BIN)/python -m e2e.cluster up --nodes $(NODES) --provider $(PROVIDER)

.PHONY: cluster-down
cluster-down: build ## stop the cluster and leave nothing behind
	@$(BIN)/python -m e2e.cluster down --provider $(PROVIDER)

.PHONY: clean
clean: ## remove what was built here (caches under ~/.cache stay)
	@rm -rf build dist demo-report .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
