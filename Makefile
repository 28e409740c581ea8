# The commands people and CI use. `make` alone lists them.

CARGO ?= cargo
# Rust installed a moment ago by rustup may not be in PATH yet.
export PATH := $(PATH):$(HOME)/.cargo/bin
SHELL := /bin/bash

.PHONY: help setup build deb test demo bench fuzz sanitize fmt lint doc deny check clean

SECONDS ?= 60

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install the Debian packages that are missing (as root)
	@tests/setup/install

build: ## the optimised binaries, in target/release
	$(CARGO) build --release --locked --workspace --bins

deb: setup ## the Debian package, in target/debian; installs cargo-deb when missing, which takes minutes
	@packaging/deb

test: setup ## every test, those with a real guest and SIGKILLs included
	@tests/guest/image >/dev/null
	@packaging/deb --tools
	$(CARGO) build --locked --workspace --bins
	$(CARGO) test --locked --workspace --no-fail-fast

demo: setup ## boot a guest from a compressing vDisk, kill the backend under it, watch it go on
	@tests/guest/demo

bench: setup build ## compare with qemu-storage-daemon on this machine
	$(CARGO) run --release --locked --package firn-tests --bin firn-bench

fuzz: ## every fuzz target for SECONDS each (default 60), the corpus first
	@fuzz/run --seconds $(SECONDS)

sanitize: ## Miri and the address sanitizer over the unsafe edges, where there is a nightly toolchain
	@tests/sanitizers

fmt: ## format the code
	$(CARGO) fmt --all
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml

lint: ## formatting, lints (warnings are errors), licences, scripts
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@tests/setup/licences
	@for script in .ci/run packaging/deb packaging/debian/p* fuzz/run tests/sanitizers tests/setup/* tests/guest/image tests/guest/accel tests/guest/demo tests/guest/lib.sh tests/src/host/boot.sh; do bash -n $$script || exit 1; done

doc: ## the crates' documentation, in target/doc
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps

deny: ## the full dependency check; installs cargo-deny when missing, which takes minutes
	@$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install cargo-deny --locked
	$(CARGO) deny check

check: ## what CI does
	@bash .ci/run

clean: ## remove what was built, the cached guest included
	$(CARGO) clean
