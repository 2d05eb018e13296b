//! A ledger and peers as processes on this machine: each test has its own.

use crate::process::{Process, datdot_in, eventually, output};
use datdot_api::{Client, Event, Status, Told};
use std::{
    ffi::OsStr,
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::mpsc,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long a process may take until it answers; two networks start at once on two cores.
const START: Duration = Duration::from_secs(60);

/// A ledger with nobody on it yet.
pub struct Network {
    node: Option<Process>,
    port: u16,
    /// Dropped last: the node writes into it.
    dir: TempDir,
}

impl Network {
    /// Starts a dev chain of its own, without hosters.
    pub fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut network = Self { dir: TempDir::new().unwrap(), node: None, port };
        network.start_node();
        network
    }

    /// Starts the node (again).
    pub fn start_node(&mut self) {
        let command = ledger(&self.file("ledger"), self.port);
        let mut node = Process::start("the node", &self.file("node.log"), command);
        eventually("the node listens", START, || {
            node.must_run();
            TcpStream::connect(("127.0.0.1", self.port)).ok()
        });
        self.node = Some(node);
    }

    /// Kills the node at once.
    pub fn kill_node(&mut self) {
        self.node.take().unwrap().kill();
    }

    /// Where the ledger is asked.
    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }

    /// A file in the network's folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where its DHT begins. With a node of your own ([`ledger`]) you need one of your own, too.
    pub fn bootstrap(&self) -> String {
        std::env::var("DATDOT_BOOTSTRAP").unwrap_or_else(|_| {
            let status = || Client::open(&self.file("ledger")).ok()?.status().ok();
            eventually("the network says where its DHT begins", START, status).swarm.bootstrap.remove(0)
        })
    }

    /// Starts a daemon for one of the dev chain's accounts, `bob` for `//Bob`.
    pub fn peer(&self, name: &str) -> Peer {
        self.peer_with(name, vec![])
    }

    /// Starts a daemon that has no address and is in the swarm.
    pub fn hidden(&self, name: &str) -> Peer {
        self.peer_with(name, vec!["--no-address".into(), "--bootstrap".into(), self.bootstrap()])
    }

    /// Starts a daemon with further arguments.
    pub fn peer_with(&self, name: &str, more: Vec<String>) -> Peer {
        let mut peer = Peer {
            name: name.into(),
            dir: self.file(name),
            log: self.file(&format!("{name}.log")),
            url: self.url(),
            listen: "127.0.0.1:0".into(),
            more,
            process: None,
        };
        peer.start();
        peer
    }

    /// Starts a daemon that offers 1 GB.
    pub fn hoster(&self, name: &str) -> Peer {
        self.peer(name).offering()
    }

    /// The same without an address.
    pub fn hidden_hoster(&self, name: &str) -> Peer {
        self.hidden(name).offering()
    }
}

/// A daemon with an account.
pub struct Peer {
    name: String,
    dir: PathBuf,
    log: PathBuf,
    url: String,
    listen: String,
    /// Further arguments.
    more: Vec<String>,
    process: Option<Process>,
}

impl Peer {
    /// Starts the daemon (again), where it was.
    pub fn start(&mut self) {
        self.start_until(|status| status.ledger.connected);
    }

    /// Starts it again while its ledger is away.
    pub fn start_without_ledger(&mut self) {
        self.start_until(|status| !status.ledger.connected);
    }

    fn start_until(&mut self, is: fn(&Status) -> bool) {
        let mut account = format!("//{}", self.name);
        account[2..3].make_ascii_uppercase();
        let mut command = datdot_in(&self.dir);
        command.args(["up", "--ledger", &self.url, "--account", &account, "--listen", &self.listen]).args(&self.more);
        let mut process = Process::start(&self.name, &self.log, command);
        let status = answer(&self.dir, &mut process, is);
        self.listen = status.listen.expect("it was told to listen");
        self.process = Some(process);
    }

    fn offering(self) -> Self {
        self.must(["host", "--space", "1GB", "--price", "10"]);
        self
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.take().unwrap().kill();
    }

    /// Freezes it: connections stay, nothing answers.
    pub fn pause(&self) {
        self.process.as_ref().unwrap().signal("STOP");
    }

    /// Ends [`Peer::pause`].
    pub fn resume(&self) {
        self.process.as_ref().unwrap().signal("CONT");
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where its peer listens.
    pub fn address(&self) -> &str {
        &self.listen
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// A client of its API.
    pub fn client(&self) -> Client {
        Client::open(&self.dir).unwrap()
    }

    /// Its status.
    pub fn status(&self) -> Status {
        self.client().status().unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// Runs a subcommand against it.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        output(datdot_in(&self.dir).args(args))
    }

    /// Runs a subcommand that must do what it is told; what it printed.
    pub fn must<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        let output = self.run(args);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}: {}\n{out}\n{err}", self.name, output.status);
        out.into_owned()
    }

    /// Waits for something in its status.
    pub fn until<T>(&self, what: &str, seconds: u64, ask: impl Fn(&Status) -> Option<T>) -> T {
        let mut last = None;
        let limit = Duration::from_secs(seconds);
        let start = Instant::now();
        while start.elapsed() < limit {
            let status = self.status();
            if let Some(answer) = ask(&status) {
                return answer;
            }
            last = Some(status);
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{} not within {limit:?}: {what}; its status was {last:#?}", self.name);
    }

    /// Its last events and those to come, until `pick` takes one.
    pub fn event<T>(&self, what: &str, mut pick: impl FnMut(&Event) -> Option<T>) -> T {
        let (tell, told) = mpsc::channel();
        let events = self.client().events().unwrap();
        // It waits for the next one for ever; we don't.
        std::thread::spawn(move || events.map_while(Result::ok).try_for_each(|Told { event, .. }| tell.send(event)));
        let mut seen = Vec::new();
        let limit = Instant::now() + Duration::from_secs(180);
        while let Ok(event) = told.recv_timeout(limit.saturating_duration_since(Instant::now())) {
            if let Some(picked) = pick(&event) {
                return picked;
            }
            seen.push(event);
        }
        panic!("{} told of no {what}, but of {seen:#?}; its status is {:#?}", self.name, self.status())
    }
}

fn answer(dir: &Path, process: &mut Process, is: fn(&Status) -> bool) -> Status {
    eventually("the daemon answers as it should", START, || {
        process.must_run();
        let status = Client::open(dir).and_then(|client| client.status()).ok()?;
        is(&status).then_some(status)
    })
}

/// A ledger on a port. To test peers without building the Polkadot SDK, name a `datdot-node` with `DATDOT_NODE`.
fn ledger(dir: &Path, port: u16) -> Command {
    let mut command = match std::env::var_os("DATDOT_NODE") {
        Some(node) => {
            let mut command = Command::new(node);
            command.args(["--chain", "dev", "--validator", "//Alice", "--dir"]).arg(dir);
            command
        }
        None => {
            let mut command = datdot_in(dir);
            command.args(["dev", "--hosters", "0"]);
            command
        }
    };
    command.args(["--rpc-port", &port.to_string()]);
    command
}

/// Bytes that don't compress and are the same in each run.
pub fn bytes(length: usize, seed: u64) -> Vec<u8> {
    // xorshift64*: good enough for content.
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(&mut next).take(length.div_ceil(8)).flatten().collect();
    bytes.truncate(length);
    bytes
}
