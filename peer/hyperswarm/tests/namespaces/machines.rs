//! Machines, as far as the kernel is concerned: network namespaces, in which this program is started again.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

/// Tells the processes that this program starts of itself who they are.
const ROLE: &str = "DATDOT_TEST_ROLE";
const READY: &str = "ready";

/// Who this process is, if the program started it itself.
pub fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// Runs what a role does.
pub fn run(what: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(200), what).await.expect("it comes in time") });
}

/// Tells the test that a role is ready.
pub fn ready() {
    println!("\n{READY}");
}

/// A machine; gone when dropped.
pub struct Machine(String);

impl Machine {
    pub fn new(name: &str) -> Result<Machine, String> {
        let machine = Machine(format!("datdot-{name}-{}", std::process::id()));
        command("ip", &["netns", "add", &machine.0])?;
        machine.ip(&["link", "set", "lo", "up"])?;
        Ok(machine)
    }

    /// Runs `ip` in it.
    pub fn ip(&self, arguments: &[&str]) -> Result<(), String> {
        command("ip", &[&["-n", &self.0], arguments].concat())
    }

    /// Runs another command in it.
    pub fn exec(&self, arguments: &[&str]) -> Result<(), String> {
        command("ip", &[&["netns", "exec", &self.0], arguments].concat())
    }

    /// Puts a wire between two of them, with a name at each end.
    pub fn wire(&self, name: &str, other: &Machine, other_name: &str) -> Result<(), String> {
        let ends = ["type", "veth", "peer", "name", other_name, "netns", &other.0];
        command("ip", &[&["link", "add", name, "netns", &self.0], &ends[..]].concat())?;
        self.ip(&["link", "set", name, "up"])?;
        other.ip(&["link", "set", other_name, "up"])
    }

    /// Gives it an address.
    pub fn address(&self, address: impl std::fmt::Display, link: &str) -> Result<(), String> {
        self.ip(&["address", "add", &format!("{address}/24"), "dev", link])
    }

    /// Starts a role of this test in it.
    pub fn start(&self, test: &str, role: &str) -> Process {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0]).arg(std::env::current_exe().unwrap());
        command.args([test, "--exact", "--nocapture"]).env(ROLE, role);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Process { child, output, role: role.to_owned() }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        _ = command("ip", &["netns", "delete", &self.0]);
    }
}

/// Killed when dropped.
pub struct Process {
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
    role: String,
}

impl Process {
    pub fn ready(mut self) -> Process {
        assert!(self.output.by_ref().map_while(Result::ok).any(|line| line == READY), "{} gets ready", self.role);
        self
    }

    pub fn succeeds(mut self) {
        self.output.by_ref().map_while(Result::ok).for_each(|line| println!("{}: {line}", self.role));
        assert!(self.child.wait().unwrap().success(), "{} gets through", self.role);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn command(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output =
        Command::new(program).args(arguments).output().map_err(|error| format!("no command `{program}`: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let why = String::from_utf8_lossy(&output.stderr);
            Err(format!("{program} {}: {}", arguments.join(" "), why.trim()))
        }
    }
}
