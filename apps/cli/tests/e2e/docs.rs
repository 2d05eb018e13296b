//! The sessions in docs/cli are replayed: each command prints what the page says.
//!
//! A page has blocks of the kind `console`. In them `$ ` begins a command; what follows is what it prints, where `[..]`
//! stands for any text and a line `...` for any lines. `KEY` is the feed key that was printed last.

use crate::{
    network::Network,
    process::{datdot, output},
};
use std::{fs, path::Path, process::Command};
use tempfile::TempDir;

struct Step {
    line: usize,
    command: String,
    expected: Vec<String>,
}

fn steps(page: &str) -> Vec<Step> {
    let (mut steps, mut inside) = (Vec::<Step>::new(), false);
    for (at, line) in page.lines().enumerate() {
        if line.starts_with("```") {
            inside = !inside && line == "```console";
            continue;
        }
        match (inside, line.strip_prefix("$ ")) {
            (false, _) => {}
            (true, Some(command)) => steps.push(Step { line: at + 1, command: command.into(), expected: vec![] }),
            (true, None) => steps.last_mut().expect("a command comes first").expected.push(line.into()),
        }
    }
    steps
}

/// Replays a page in a folder. `state` is the daemon's folder.
fn replay(name: &str, dir: &Path, state: &Path) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli").join(name);
    let steps = steps(&fs::read_to_string(page).unwrap());
    assert!(!steps.is_empty(), "{name} shows no session");
    let binary = Path::new(env!("CARGO_BIN_EXE_datdot")).parent().unwrap();
    let path = std::env::join_paths(
        [binary.to_owned()].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let mut key = "KEY".to_owned();
    for Step { line, command, expected } in steps {
        let mut shell = Command::new("sh");
        shell.current_dir(dir).args(["-c", &format!("exec 2>&1\n{}", command.replace("KEY", &key))]);
        shell.env("PATH", path.as_ref().unwrap()).env("DATDOT_DIR", state).env("COLUMNS", "120");
        shell.env_remove("DATDOT_PASSWORD_FILE").env_remove("RUST_LOG");
        let printed = String::from_utf8(output(&mut shell).stdout).unwrap();
        if let Some(found) = key_in(&printed) {
            key = found;
        }
        let printed = printed.replace(&key, "KEY");
        let printed: Vec<_> = printed.lines().map(|line| shorten(line, dir)).collect();
        let expected: Vec<_> = expected.iter().map(String::as_str).collect();
        let shown: Vec<_> = printed.iter().map(String::as_str).collect();
        assert!(is_like(&shown, &expected), "{name}:{line}: `{command}` printed\n{}", printed.join("\n"));
    }
}

fn shorten(line: &str, dir: &Path) -> String {
    line.replace(&dir.display().to_string(), "/home/you").trim_end().to_owned()
}

fn key_in(text: &str) -> Option<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    words.rev().find(|word| word.len() == 64 && word.chars().all(|c| c.is_ascii_hexdigit())).map(Into::into)
}

fn is_like(lines: &[&str], expected: &[&str]) -> bool {
    match (lines, expected) {
        (lines, ["...", rest @ ..]) => (0..=lines.len()).any(|skipped| is_like(&lines[skipped..], rest)),
        ([line, lines @ ..], [first, rest @ ..]) => line_is_like(line, first) && is_like(lines, rest),
        (lines, expected) => lines.is_empty() && expected.is_empty(),
    }
}

fn line_is_like(line: &str, expected: &str) -> bool {
    match expected.split_once("[..]") {
        None => line == expected,
        Some((before, after)) => line.strip_prefix(before).is_some_and(|rest| {
            rest.char_indices().map(|(at, _)| at).chain([rest.len()]).any(|at| line_is_like(&rest[at..], after))
        }),
    }
}

#[test]
fn pages_are_compared_line_by_line_with_room_for_what_changes() {
    assert!(line_is_like("took 5 ms", "took [..] ms") && !line_is_like("took 5 s", "took [..] ms"));
    assert!(is_like(&["a", "b", "c"], &["a", "...", "c"]) && is_like(&["a"], &["...", "a", "..."]));
    assert!(!is_like(&["a", "b"], &["a"]) && !is_like(&["a"], &["a", "b"]));
    let steps = steps("text\n```console\n$ one\nprints\n$ two\n```\n```sh\n$ three\n```\n");
    assert_eq!(steps.iter().map(|step| step.command.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!((steps[0].line, &steps[0].expected[..]), (3, &["prints".to_owned()][..]));
}

#[test]
fn the_sessions_that_need_no_daemon_go_as_they_are_shown() {
    for page in ["wallet.md", "mistakes.md"] {
        let dir = TempDir::new().unwrap();
        replay(page, dir.path(), &dir.path().join("state"));
    }
}

#[test]
fn the_sessions_on_a_network_go_as_they_are_shown() {
    let network = Network::start();
    let _hosters = ["bob", "charlie", "dave"].map(|name| network.hoster(name));
    let you = network.peer("alice");
    let dir = TempDir::new().unwrap();
    for page in ["publish.md", "host.md"] {
        replay(page, dir.path(), you.dir());
    }
}

#[test]
fn each_page_is_replayed_and_each_subcommand_is_shown() {
    let pages = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli")).unwrap();
    let (mut names, mut all) = (Vec::new(), String::new());
    for page in pages {
        let path = page.unwrap().path();
        names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
        all.push_str(&fs::read_to_string(path).unwrap());
    }
    names.sort_unstable();
    assert_eq!(names, ["host.md", "mistakes.md", "publish.md", "wallet.md"]);
    let help = String::from_utf8(datdot().arg("--help").output().unwrap().stdout).unwrap();
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // Those that run until they are stopped, or ask the world, are shown in the README.
    let elsewhere = ["demo", "dev", "up", "doctor", "help"];
    for command in commands.filter_map(|line| line.split_whitespace().next()) {
        let shown = all.contains(&format!("$ datdot {command}"));
        assert!(shown || elsewhere.contains(&command), "no page shows `datdot {command}`");
    }
}
