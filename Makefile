# Each target sets up what it needs (scripts/setup.sh) and can be called alone.

# Crates that build without the Polkadot SDK. Lints and documentation of the others need a second build of the SDK.
LIGHT := datdot-proof datdot-market datdot-ledger datdot-wire datdot-hypercore datdot-hyperswarm datdot-drive datdot-roles datdot-api datdot-daemon datdot datdot-hostile xtask
LIGHT_FLAGS := --locked $(addprefix -p ,$(LIGHT)) --no-default-features
# Where the demo's binary ends up.
TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)

.PHONY: help setup demo test fmt lint rules docs bench fuzz

help: ## Show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is missing: wasm target, Debian packages, npm packages
	@scripts/setup.sh

demo: setup ## Build, then publish, host, prove, pay and read back once (FILE=path publishes your own file)
	cargo build --locked --release --workspace --bin datdot
	$(TARGET)/release/datdot demo $(if $(FILE),"$(FILE)")

test: setup fmt lint rules docs ## Run everything, as CI does
	@scripts/test.sh

fmt: ## Check the formatting
	cargo fmt --all --check

lint: ## Run clippy, warnings denied
	cargo clippy $(LIGHT_FLAGS) --all-targets -- -D warnings

rules: ## Check that rules/ needs no std
	cargo check --locked -p datdot-proof -p datdot-market --target wasm32v1-none --no-default-features

docs: ## Build the documentation, warnings denied
	RUSTDOCFLAGS="-D warnings" cargo doc $(LIGHT_FLAGS) --no-deps --document-private-items

bench: setup ## Measure, and write docs/benchmarks.md
	cargo xtask bench

fuzz: ## Fuzz with hostile input (ONLY=name for one target, SECONDS=n for how long each)
	@scripts/fuzz.sh $(or $(ONLY),all) $(or $(SECONDS),60)
