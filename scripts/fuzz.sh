#!/bin/sh
# Fuzzes a target, or all one after the other, each for so many seconds: scripts/fuzz.sh [TARGET|all] [SECONDS]
# What is found is a file in fuzz/artifacts/TARGET. Needs no nightly toolchain: see docs/fuzzing.md.
set -eu
cd "$(dirname "$0")/.."
target="${1:-all}" seconds="${2:-60}"

host=$(rustc -vV | sed -n 's/^host: //p')
# A folder of its own: with these flags, build scripts of the same crates would be run again and again for either build.
folder="${CARGO_TARGET_DIR:-$PWD}/fuzz/target"
# As cargo-fuzz sets them: coverage for libFuzzer, and AddressSanitizer, of which a stable compiler must be asked for twice.
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
  -Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address"
export LSAN_OPTIONS="suppressions=$PWD/fuzz/lsan.supp"
targets=$(sed -n 's/^name = "\([a-z]*\)"$/\1/p' fuzz/Cargo.toml)
[ "$target" = all ] || targets=$target

# With --target, what runs while building (build scripts, macros) is built without all that.
CARGO_TARGET_DIR="$folder" cargo build --locked --release --manifest-path fuzz/Cargo.toml --target "$host" \
  $(printf -- '--bin %s ' $targets)
for name in $targets; do
  mkdir -p "fuzz/corpus/$name" "fuzz/artifacts/$name"
  echo "fuzz: $name for $seconds s"
  # What libFuzzer learns goes to the first folder; the second is in the repository. A single allocation of 256 MiB, or 1 GiB
  # in all, is a finding.
  "$folder/$host/release/$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=256 \
    -max_len=16384 -print_final_stats=1 -artifact_prefix="fuzz/artifacts/$name/" \
    "fuzz/corpus/$name" "fuzz/seeds/$name"
done
