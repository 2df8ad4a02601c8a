# One target for each thing that a person or a machine wants. Everything that is missing is installed or asked for by name.

SHELL := /bin/sh
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/nodeseal

# CI starts from a fresh clone each time: what was built before lies outside of it.
ifeq ($(CI),true)
export CARGO_TARGET_DIR ?= $(CACHE)/target
endif
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)

export NODESEAL_SERVERS := $(CACHE)/servers

.PHONY: help quickstart test check lint proto advisories bench e2e e2e-full hsm-test fuzz fuzz-keep torture selinux seccomp deb rpm package-test small reproducible features msrv minimal-versions mutants aarch64 vm-test rules
help:
	@echo 'make quickstart   build, start with a software TPM, encrypt and decrypt a DEK, print what kube-apiserver needs'
	@echo 'make test         lint, then every test: unit, TPM, service, Vault, kube-apiserver'
	@echo 'make check        lint, then the unit tests but for the long one that stops each change of keys at every step'
	@echo 'make lint         format, clippy, links of the code, shell scripts, generated code, dependencies'
	@echo 'make proto        generate proto/generated anew, after a change of the proto files or of tonic and prost'
	@echo 'make advisories   known vulnerabilities of dependencies (needs the network)'
	@echo 'make e2e          only the tests with kube-apiserver and etcd'
	@echo 'make e2e-full     those with providers and migrations in full length: 10,000 Secrets, both APIs'
	@echo 'make fuzz         run every fuzz target for SECONDS=60; make fuzz-keep puts what it found into the corpora'
	@echo 'make hsm-test     try a real device: MODULE=/path TOKEN=label PIN_FILE=/path, or DEVICE=/dev/tpmrm0'
	@echo 'make bench        speed and memory beside a bare tonic echo server, without the sandbox, and with a provider beside bare calls to it'
	@echo 'make seccomp      run tests under strace: which line of the seccomp policies do they execute (some minutes)'
	@echo 'make selinux      build the SELinux module and link it with the policy of Debian, in target/selinux'
	@echo 'make deb          a package for Debian 12 in target/debian'
	@echo 'make rpm          the same for Fedora and its kin in target/generate-rpm; make package-test tries both out (root)'
	@echo 'make vm-test      the .deb in a virtual machine with systemd, SELinux and a TPM: reboots, cut power, exchanged parts (root, half an hour)'
	@echo 'make small        the smallest nodeseald (hardware only) and the largest, and whether they keep within their sizes'
	@echo 'make reproducible two builds of this commit in two folders are the same, programs and packages; FEATURES=tpm2 is quicker, without packages'
	@echo 'make msrv         the oldest Rust that Cargo.toml names builds it all; make minimal-versions the oldest dependencies that it allows'
	@echo 'make mutants      change each line of the pure parts and see whether their tests notice; FILES=path for one file'
	@echo 'make features     each feature alone: no warning, its own tests'
	@echo 'make aarch64      tests for aarch64 under qemu-user (root), and a package in target/aarch64-unknown-linux-gnu/debian'
	@echo 'make rules        try the alerts of packaging/monitoring with promtool'
	@echo 'make torture      1,000 times kill -9 of both daemons in the middle of rotations and writes'

# With the software TPM alone: what talks to clouds takes minutes to build.
quickstart:
	scripts/need.sh build
	scripts/remapped.sh cargo build --release --bins --no-default-features --features tpm2
	scripts/quickstart.sh $(TARGET)/release

# TSS2_LOG: the TPM's library writes a line for every refusal, and refusals are what is tried.
test: export TSS2_LOG := all+NONE
test: lint
	scripts/need.sh test
	scripts/need.sh rules
	scripts/rules.sh
	tests/providers/build-vault.sh "$(NODESEAL_SERVERS)"
	scripts/rust-tests.sh
	NODESEAL_BIN=$(TARGET)/debug scripts/tests.sh tests/k8s/run.sh all

# What a change is tried with before it is committed: minutes, and no server.
check: lint
	scripts/tests.sh cargo test --workspace --no-fail-fast --lib --test house -- --skip no_operation_that_is_stopped_at_any_step

rules:
	scripts/need.sh rules
	scripts/rules.sh

lint:
	scripts/need.sh lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --no-default-features -- -D warnings
	cargo run -q -p proto-generate -- --check
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc -q --no-deps --lib --document-private-items
	scripts/shellcheck.sh
	"$$(dirname "$$(tests/venv.sh house)")/typos"
	$(CACHE)/cargo-deny/bin/cargo-deny --workspace check bans licenses sources

# From the proto files of Kubernetes to the code that is checked in.
proto:
	cargo run -q -p proto-generate

# The oldest Rust that Cargo.toml names.
msrv:
	scripts/need.sh msrv
	cargo +"$$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)" check --locked --all-targets --target-dir $(TARGET)/msrv

# The oldest versions of our own dependencies that Cargo.toml allows.
minimal-versions:
	scripts/need.sh build
	scripts/minimal-versions.sh $(TARGET)/minimal-versions

# What a change of the pure parts leaves unnoticed by their tests: FILES=path for one file, an hour for all.
mutants:
	scripts/need.sh mutants
	scripts/mutants.sh "$(TARGET)/mutants" $(FILES)

advisories:
	scripts/need.sh lint
	$(CACHE)/cargo-deny/bin/cargo-deny --workspace check advisories

e2e:
	scripts/need.sh test
	cargo build --bins
	NODESEAL_BIN=$(TARGET)/debug tests/k8s/run.sh e2e

e2e-full:
	scripts/need.sh test
	cargo build --bins
	NODESEAL_E2E=full NODESEAL_BIN=$(TARGET)/debug tests/k8s/run.sh e2e -timeout 60m -run '^TestProvider|^TestMigration'

SECONDS ?= 60
fuzz:
	scripts/need.sh fuzz
	scripts/fuzz.sh run $(SECONDS) $(TARGET)/fuzz

fuzz-keep:
	scripts/need.sh fuzz
	scripts/fuzz.sh keep $(TARGET)/fuzz

bench:
	scripts/need.sh test
	cargo build --release --bins
	cargo build --release -p bare-echo
	tests/providers/build-vault.sh "$(NODESEAL_SERVERS)"
	scripts/bench.sh $(TARGET)/release
	scripts/bench-providers.sh $(TARGET)/release

# The programs that the tests were built with.
seccomp:
	scripts/need.sh seccomp
	tests/providers/build-vault.sh "$(NODESEAL_SERVERS)"
	cargo test --no-run
	scripts/seccomp.sh $(TARGET)/debug

torture:
	scripts/need.sh test
	NODESEAL_KILLS=1000 cargo test --test service torture -- --nocapture

# Needs nothing but the policy's headers: no compiler, no kernel with SELinux.
selinux:
	scripts/need.sh selinux
	selinux/build.sh policy "$(TARGET)/selinux"
	@echo "to install: semodule -i $(TARGET)/selinux/nodeseal.pp, then see docs/operations/selinux.md"

# Megabytes are 10^6 bytes.
small:
	scripts/need.sh build
	scripts/remapped.sh cargo build --profile small --bins --no-default-features --features tpm2,recovery
	scripts/remapped.sh cargo build --release --bins
	scripts/sizes.sh $(TARGET)/small/nodeseald 4000000 $(TARGET)/release/nodeseald 20000000

# Not what is under work: the commit that is checked out.
reproducible:
	scripts/need.sh $(if $(FEATURES),build,package)
	scripts/reproducible.sh $(if $(FEATURES),programs,packages)

features: export TSS2_LOG := all+NONE
features:
	scripts/need.sh test
	tests/providers/build-vault.sh "$(NODESEAL_SERVERS)"
	scripts/features.sh

# qemu-user knows neither Landlock nor seccomp, so what tests these is left out; so is what stops an operation at every step, which
# takes very long there and has nothing of a processor in it.
ARM := --target aarch64-unknown-linux-gnu --no-default-features --features tpm2,recovery
aarch64:
	scripts/need.sh aarch64
	scripts/aarch64.sh test scripts/binfmt.sh cargo test $(ARM) --lib --bins --test tpm -- --skip crash:: --skip sandbox::
	scripts/aarch64.sh test scripts/binfmt.sh cargo test $(ARM) --test service -- contract::
	scripts/aarch64.sh release scripts/package.sh deb $(TARGET) aarch64-unknown-linux-gnu

deb:
	scripts/need.sh package
	scripts/package.sh deb $(TARGET)

rpm:
	scripts/need.sh package
	scripts/package.sh rpm $(TARGET)

package-test:
	scripts/need.sh package
	set -e; two=$$(REVISION=2 scripts/package.sh deb $(TARGET)); one=$$(scripts/package.sh deb $(TARGET)); \
		tests/packages/run.sh "$$one" "$$two" "$$(scripts/package.sh rpm $(TARGET))"

# Each chapter goes on where the one before ended, so there is nothing to choose from.
vm-test:
	scripts/need.sh vm
	set -e; deb=$$(scripts/package.sh deb $(TARGET)); cd tests/k8s; \
		CGO_ENABLED=0 NODESEAL_CACHE="$(CACHE)" NODESEAL_DEB="$$deb" go test -count=1 -timeout 90m -v ./vm

# TSS2_LOG: as above.
hsm-test:
	scripts/need.sh build
	cargo build -p hsm-tests
	@if [ -n "$(DEVICE)" ]; then \
		TSS2_LOG=all+NONE "$(TARGET)/debug/hsm-test" tpm2 --device "$(DEVICE)" $(if $(filter 1,$(ALLOW_SOFTWARE)),--allow-software); \
	elif [ -n "$(MODULE)" ] && [ -n "$(TOKEN)" ] && [ -n "$(PIN_FILE)" ]; then \
		"$(TARGET)/debug/hsm-test" pkcs11 --module "$(MODULE)" --token "$(TOKEN)" --pin-file "$(PIN_FILE)" \
			$(if $(SERIAL),--serial "$(SERIAL)") $(if $(MECHANISM),--mechanism "$(MECHANISM)"); \
	else \
		echo "usage: make hsm-test MODULE=/path/to/module.so TOKEN=label PIN_FILE=/path/to/pin [SERIAL=number] [MECHANISM=name]" >&2; \
		echo "       make hsm-test DEVICE=/dev/tpmrm0|swtpm:port=N [ALLOW_SOFTWARE=1]" >&2; \
		exit 64; \
	fi
