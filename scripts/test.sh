#!/bin/bash
# Runs every test of the workspace and ends with their sum.
set -uo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT

# One profile and one choice of packages for all, the same as the demo's: the Polkadot SDK is compiled once.
tests() { cargo test --locked --release --workspace --no-fail-fast "$@" 2>&1 | tee -a "$log"; }

status=0
tests || status=1
# Those that need a node get the one that was just built, one after the other: each runs a chain.
DATDOT_NODE="$(realpath "${CARGO_TARGET_DIR:-target}")/release/datdot-node" \
  tests --test with_node -- --ignored --test-threads=1 || status=1

awk '/^test result:/ { passed += $4; failed += $6 } END { printf "\n%d passed, %d failed\n", passed, failed }' "$log"
exit $status
