//! Who may depend on whom. The list follows ARCHITECTURE.md: a new edge is a decision, and is made here.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

/// Our packages, each with those of ours that it may depend on.
const ALLOWED: &[(&str, &[&str])] = &[
    // rules: what is true
    ("datdot-proof", &[]),
    ("datdot-market", &["datdot-proof"]),
    // ledger: where it is agreed
    ("pallet-datdot", &["datdot-market", "datdot-proof"]),
    ("datdot-runtime", &["datdot-market", "datdot-proof", "pallet-datdot"]),
    ("datdot-node", &["datdot-runtime"]),
    ("datdot-ledger", &["datdot-market", "datdot-proof"]),
    // peer: who does the work
    ("datdot-wire", &[]),
    ("datdot-hypercore", &["datdot-proof", "datdot-wire"]),
    ("datdot-hyperswarm", &["datdot-wire"]),
    ("datdot-drive", &["datdot-hypercore", "datdot-proof", "datdot-wire"]),
    ("datdot-roles", &["datdot-market", "datdot-proof"]),
    ("datdot-api", &[]),
    (
        "datdot-daemon",
        &[
            "datdot-api",
            "datdot-drive",
            "datdot-hypercore",
            "datdot-hyperswarm",
            "datdot-ledger",
            "datdot-market",
            "datdot-proof",
            "datdot-roles",
            "datdot-wire",
        ],
    ),
    // apps: what people see
    ("datdot", &["datdot-api", "datdot-daemon", "datdot-ledger", "datdot-market", "datdot-node"]),
    // chores
    ("datdot-hostile", &["datdot-drive", "datdot-hypercore", "datdot-hyperswarm", "datdot-proof", "datdot-wire"]),
    ("xtask", &["datdot-api", "datdot-daemon", "datdot-hypercore", "datdot-hyperswarm", "datdot-proof", "datdot-wire"]),
];

/// What only one of our packages may know, and which.
const ALONE: &[(&str, &str)] = &[
    ("subxt", "datdot-ledger"),
    ("subxt-signer", "datdot-ledger"),
    ("sc-service", "datdot-node"),
    ("crypto_secretstream", "datdot-wire"),
    ("hypercore_handshake", "datdot-wire"),
    ("axum", "datdot-daemon"),
    ("ureq", "datdot-api xtask"),
    ("clap", "datdot datdot-node"),
];

/// What must not be in the build at all, not even by way of others: crates that can't speak today's Hypercore.
const BANNED: &[&str] = &["hypercore", "hypercore-protocol", "hyperdht", "hyperswarm", "udx", "async-udx", "hyperbee"];

#[test]
fn dependencies_point_only_where_the_architecture_says() {
    let allowed: BTreeMap<_, BTreeSet<_>> =
        ALLOWED.iter().map(|(package, on)| (*package, on.iter().copied().collect())).collect();
    let metadata = metadata();
    let packages = packages(&metadata);
    let ours: BTreeSet<_> = packages.iter().map(|package| text(package, "name")).collect();
    for package in &packages {
        let name = text(package, "name");
        let allowed =
            allowed.get(name).unwrap_or_else(|| panic!("{name} is new: say in ALLOWED what it may depend on"));
        for on in dependencies(package) {
            assert!(!ours.contains(on) || allowed.contains(on), "{name} must not depend on {on}");
        }
    }
}

#[test]
fn what_one_package_knows_alone_no_other_depends_on() {
    let metadata = metadata();
    for package in packages(&metadata) {
        for on in dependencies(package) {
            let owners = ALONE.iter().filter(|(known, _)| *known == on).map(|(_, owners)| *owners).next();
            let name = text(package, "name");
            assert!(
                owners.is_none_or(|owners| owners.split(' ').any(|owner| owner == name)),
                "{name} must not depend on {on}: that is {}'s",
                owners.unwrap_or_default()
            );
        }
    }
}

#[test]
fn crates_that_cannot_speak_today_s_hypercore_are_nowhere() {
    let lock = include_str!("../../Cargo.lock");
    for banned in BANNED {
        assert!(!lock.contains(&format!("name = \"{banned}\"\n")), "{banned} is in Cargo.lock");
    }
}

#[test]
fn every_package_of_ours_is_linted() {
    let metadata = metadata();
    for package in packages(&metadata) {
        let path = text(package, "manifest_path");
        let manifest = std::fs::read_to_string(path).unwrap();
        let all = ["unsafe_code = ", "missing_docs = ", "unwrap_used = "].iter().all(|lint| manifest.contains(lint));
        assert!(manifest.contains("[lints]\nworkspace = true") || all, "{path} leaves out lints");
    }
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn packages(metadata: &Value) -> Vec<&Value> {
    metadata["packages"].as_array().unwrap().iter().collect()
}

/// What a package is built with. Dev-dependencies don't shape what is shipped.
fn dependencies(package: &Value) -> impl Iterator<Item = &str> {
    let all = package["dependencies"].as_array().unwrap();
    all.iter().filter(|on| on["kind"] != "dev").map(|on| text(on, "name"))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap()
}
