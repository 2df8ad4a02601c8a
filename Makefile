# One target for each thing that a person or a machine wants. Everything that is missing is installed or asked for by name.

SHELL := /bin/sh
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/nodeseal

# CI starts from a fresh clone each time: what was built before lies outside of it.
ifeq ($(CI),true)
export CARGO_TARGET_DIR ?= $(CACHE)/target
endif
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)

export NODESEAL_SERVERS := $(CACHE)/servers

.PHONY: help quickstart test lint advisories bench e2e
help:
	@echo 'make quickstart   build, start with a software TPM, encrypt and decrypt a DEK, print what kube-apiserver needs'
	@echo 'make test         lint, then every test: unit, TPM, service, kube-apiserver'
	@echo 'make lint         format, clippy, dependencies'
	@echo 'make advisories   known vulnerabilities of dependencies (needs the network)'
	@echo 'make e2e          only the tests with kube-apiserver and etcd'
	@echo 'make bench        speed and memory beside a bare tonic echo server'

quickstart:
	scripts/need.sh build
	cargo build --release --bins
	scripts/quickstart.sh $(TARGET)/release

test: lint
	scripts/need.sh test
	cargo test --no-fail-fast
	NODESEAL_BIN=$(TARGET)/debug tests/k8s/run.sh all

lint:
	scripts/need.sh lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --no-default-features -- -D warnings
	$(CACHE)/cargo-deny/bin/cargo-deny check bans licenses sources

advisories:
	scripts/need.sh lint
	$(CACHE)/cargo-deny/bin/cargo-deny check advisories

e2e:
	scripts/need.sh test
	cargo build --bins
	NODESEAL_BIN=$(TARGET)/debug tests/k8s/run.sh e2e

bench:
	scripts/need.sh test
	cargo build --release --bins
	cargo build --release -p bare-echo
	scripts/bench.sh $(TARGET)/release
