#!/bin/bash
# Runs every test of the workspace and ends with their sum.
set -uo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT

# One profile for all, the same as the demo's: the Polkadot SDK is compiled once.
cargo test --locked --release --workspace --no-fail-fast 2>&1 | tee "$log"
status=$?

awk '/^test result:/ { passed += $4; failed += $6; ignored += $8 }
     END { printf "\n%d passed, %d failed%s\n", passed, failed, ignored ? ", " ignored " ignored" : "" }' "$log"
exit $status
