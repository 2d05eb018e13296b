//! The benches still work: each measures a hundredth of what it should. The figures mean nothing.

use std::process::Command;

#[test]
fn hypercore_is_measured() {
    run("hypercore", &["64 KiB", "1 KiB", "durable", "warm", "killed", "64 GiB", "idle feeds", "blocks in a feed"]);
}

#[test]
fn hyperswarm_is_measured() {
    run("hyperswarm", &["ours → ours", "`blind-peer` → JS", "announced topics", "connections"]);
}

/// Runs a bench and looks for some of its rows.
fn run(bench: &str, rows: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let output = command.args(["bench", bench]).env("QUICK", "1").output().expect("it was built");
    let (text, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(rows.iter().all(|row| text.contains(row)), "{said}\n{text}");
    assert!(!text.contains("not possible"), "{said}\n{text}");
}
