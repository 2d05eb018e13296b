#!/bin/sh
# Installs what the build and the tests need and this machine lacks. Needs no network when nothing is missing.
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }
die() { say "setup: $*"; exit 1; }

# Debian packages: a C compiler for a few crates, protoc for libp2p's messages.
packages=""
command -v cc >/dev/null 2>&1 || packages="$packages build-essential"
command -v protoc >/dev/null 2>&1 || packages="$packages protobuf-compiler"
# A router for a test, which does without it elsewhere.
[ -z "${CI:-}" ] || command -v nft >/dev/null 2>&1 || packages="$packages nftables"
if [ -n "$packages" ]; then
  install="apt-get install --yes --no-install-recommends$packages"
  command -v apt-get >/dev/null 2>&1 || die "please install:$packages"
  if [ "$(id -u)" -ne 0 ]; then
    say "setup: some Debian packages are missing. Please run"
    say ""
    say "  sudo $install"
    say ""
    die "and then the same command again"
  fi
  say "setup: $install"
  # A package list that is a little old is good enough, none is not.
  DEBIAN_FRONTEND=noninteractive $install >&2 ||
    { apt-get update >&2 && DEBIAN_FRONTEND=noninteractive $install >&2; } ||
    die "apt-get could not install:$packages"
fi

command -v cargo >/dev/null 2>&1 || die "cargo is missing: see https://rustup.rs"
command -v rustup >/dev/null 2>&1 || die "rustup is missing: see https://rustup.rs"
if ! rustup target list --installed | grep -qx wasm32v1-none; then
  say "setup: adding the target wasm32v1-none for the ledger's runtime"
  rustup target add wasm32v1-none >&2
fi

command -v node >/dev/null 2>&1 || die "Node.js 20 or newer is missing: see https://nodejs.org"
[ "$(node --print 'process.versions.node.split(".")[0]')" -ge 20 ] || die "Node.js 20 or newer is needed, this is $(node --version)"
command -v npm >/dev/null 2>&1 || die "npm is missing: it belongs to Node.js"
for folder in reader tests/js; do
  # npm notes what it installed; as long as that is no older than the lock file, nothing is missing.
  if [ ! -e "$folder/node_modules/.package-lock.json" ] ||
    [ "$folder/package-lock.json" -nt "$folder/node_modules/.package-lock.json" ]; then
    say "setup: npm ci in $folder"
    (cd "$folder" && npm ci --no-audit --no-fund --loglevel=error >&2)
    touch "$folder/node_modules/.package-lock.json"
  fi
done
