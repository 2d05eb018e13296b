//! Programs that are measured, each in a process of its own.
//!
//! Ours is this binary again (`xtask peer`), the other one is `tests/js/bench.js`. Both understand the same:
//! `MODE --name=value …`, then one JSON object per line of output, each with an `event`, and a line `go` on their input to begin.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    env, fmt, fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

/// How long a program may take to the next line.
const PATIENCE: Duration = Duration::from_secs(240);
/// Hundredths of a second: what the kernel counts CPU time in.
const TICK: f64 = 0.01;

/// Whose program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// This repository's.
    Us,
    /// The npm packages'.
    JavaScript,
}

/// A running program; killed when dropped.
pub struct Program {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    name: String,
}

impl Program {
    /// Starts a program and waits until it is ready. Returns what it said then, too.
    pub fn start(by: By, mode: &str, options: &[(&str, &dyn fmt::Display)]) -> Result<(Program, Value)> {
        let mut command = match by {
            By::Us => Command::new(env::current_exe()?),
            By::JavaScript => Command::new("node"),
        };
        match by {
            By::Us => command.arg("peer"),
            By::JavaScript => command.current_dir(javascript()?).arg("bench.js"),
        };
        command.arg(mode).args(options.iter().map(|(name, value)| format!("--{name}={value}")));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("can't start")?;
        let input = child.stdin.take().context("its input is piped")?;
        let output = BufReader::new(child.stdout.take().context("its output is piped")?);
        let (line, lines) = channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|text| line.send(text)));
        let mut program = Program { child, input, lines, name: format!("{by} {mode}") };
        let ready = program.hear("ready")?;
        Ok((program, ready))
    }

    /// Lets it begin, and waits until it is done. Returns what it said then.
    pub fn run(&mut self) -> Result<Value> {
        self.go()?;
        self.hear("done")
    }

    /// Lets it begin.
    pub fn go(&mut self) -> Result<()> {
        Ok(self.input.write_all(b"go\n")?)
    }

    /// Waits for a line about an event.
    pub fn hear(&mut self, event: &str) -> Result<Value> {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).with_context(|| format!("{}: no {event}", self.name))?;
            let line: Value = serde_json::from_str(&line).with_context(|| format!("{}: {line}", self.name))?;
            match line["event"].as_str() {
                Some(name) if name == event => return Ok(line),
                Some("failed") => bail!("{}: {line}", self.name),
                _ => {}
            }
        }
    }

    /// Kills it at once. Returns what it said last about an event.
    pub fn kill(mut self, event: &str) -> Result<Option<Value>> {
        self.child.kill()?;
        self.child.wait()?;
        let said = self.lines.iter().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        Ok(said.filter(|line| line["event"] == event).last())
    }

    /// Waits until it ends by itself.
    pub fn finish(&mut self) -> Result<()> {
        anyhow::ensure!(self.child.wait()?.success(), "{} failed", self.name);
        Ok(())
    }

    /// Seconds of CPU that it has used.
    pub fn cpu(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // Behind the name, which is in parentheses: utime and stime are the 12th and 13th.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
        Ok(fields.take(2).map(|ticks| ticks.parse().unwrap_or(0.0)).sum::<f64>() * TICK)
    }

    /// Its resident memory in bytes.
    pub fn memory(&self) -> Result<u64> {
        crate::machine::memory(self.child.id(), "VmRSS")
    }

    /// How many files it has open.
    pub fn open_files(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            By::Us => "ours",
            By::JavaScript => "JS",
        })
    }
}

/// A figure in an answer.
pub fn number(answer: &Value, name: &str) -> Result<f64> {
    answer[name].as_f64().with_context(|| format!("no {name} in {answer}"))
}

/// A word in an answer.
pub fn text(answer: &Value, name: &str) -> Result<String> {
    Ok(answer[name].as_str().with_context(|| format!("no {name} in {answer}"))?.to_owned())
}

/// The folder of the programs in JavaScript, with what they need installed.
fn javascript() -> Result<&'static Path> {
    let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/js"));
    if !dir.join("node_modules/blind-peer").exists() {
        let npm = Command::new("npm").args(["ci", "--silent"]).current_dir(dir).status();
        anyhow::ensure!(npm.context("npm is missing")?.success(), "npm ci failed in {}", dir.display());
    }
    Ok(dir)
}
