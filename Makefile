# Each target sets up what it needs (scripts/setup.sh) and can be called alone.

# Everything is built, linted and documented as one release workspace, so the Polkadot SDK is compiled once and checked once.
WORKSPACE := --locked --release --workspace
# Crates that build without the Polkadot SDK, as a hoster without a node builds them.
LIGHT := datdot-proof datdot-market datdot-ledger datdot-wire datdot-hypercore datdot-hyperswarm datdot-drive datdot-roles datdot-api datdot-daemon datdot datdot-hostile xtask
LIGHT_FLAGS := --locked --release $(addprefix -p ,$(LIGHT)) --no-default-features
# Where the demo's binary ends up.
TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)

.PHONY: help setup demo build test fmt lint light rules docs bench fuzz

help: ## Show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is missing: wasm target, Debian packages, npm packages
	@scripts/setup.sh

demo: setup ## Build, then publish, host, prove, pay and read back once (FILE=path publishes your own file)
	cargo build $(WORKSPACE) --bin datdot
	$(TARGET)/release/datdot demo $(if $(FILE),"$(FILE)")

test: setup fmt light rules build lint docs ## Run everything, as CI does
	@scripts/test.sh

build: ## Compile everything and its tests
	cargo test $(WORKSPACE) --no-run

fmt: ## Check the formatting
	cargo fmt --all --check

# After `build`: under clippy the runtime's build script would build its wasm with clippy too.
lint: build ## Run clippy over everything, warnings denied
	cargo clippy $(WORKSPACE) --all-targets -- -D warnings

light: ## Run clippy over what needs no node, in minutes
	cargo clippy $(LIGHT_FLAGS) --all-targets -- -D warnings

rules: ## Check that rules/ needs no std
	cargo check --locked -p datdot-proof -p datdot-market --target wasm32v1-none --no-default-features

docs: build ## Build the documentation, warnings denied
	RUSTDOCFLAGS="-D warnings" cargo doc $(WORKSPACE) --no-deps --document-private-items

bench: setup ## Measure, and write docs/benchmarks.md
	cargo xtask bench ledger
	cargo xtask bench hypercore
	cargo xtask bench hyperswarm

fuzz: ## Fuzz with hostile input (ONLY=name for one target, SECONDS=n for how long each)
	@scripts/fuzz.sh $(or $(ONLY),all) $(or $(SECONDS),60)
