# What people and CI do here. The steps are in scripts/; each can be called by itself, from any folder.

.DEFAULT_GOAL := help
.PHONY: help demo test test-full check bench image-check proto clean

export DEMO_EXIT MODEL

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-17s %s\n", $$1, $$2 }'

demo: ## serve the built-in model and show two answers (DEMO_EXIT=1: then stop; MODEL=savedmodel: through TensorFlow)
	@scripts/demo

test: check ## what CI runs: style, types and every test but the long ones
	@scripts/test

test-full: check ## the long tests too
	@scripts/test full

check: ## style and types: ruff, mypy
	@scripts/check

bench: ## our server beside its peers: benchmarks/REPORT.md (half an hour on a quiet machine with two cores)
	@scripts/bench

image-check: ## build the container images and run them hardened (root, apt and a package index; a few minutes)
	@scripts/image-check
	@scripts/image-check --file Dockerfile.fpga

proto: ## generate server/accelserve/wire from protos/
	@scripts/proto

clean: ## remove what was made here: environments, caches, builds
	@rm -rf .venv .venv-compat .venv-azml .cache .pytest_cache .mypy_cache .ruff_cache build dist server/*.egg-info
	@find server tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
