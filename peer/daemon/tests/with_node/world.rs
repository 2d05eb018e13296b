//! A ledger and daemons, all on this machine.

use datdot_api::{Amount, Client, HostOrder, Key, Progress, PublishOrder, Status, Wanted, status::Standing};
use datdot_daemon::{Config, Daemon};
use datdot_ledger::Account;
use datdot_market::params::DAT;
use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Once,
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};

pub const PATIENCE: Duration = Duration::from_secs(120);
pub const MIB: u64 = 1 << 20;

pub struct Node {
    child: Child,
    pub url: String,
}

impl Node {
    fn start(dir: &Path) -> Self {
        static LOG: Once = Once::new();
        LOG.call_once(|| {
            let filter = tracing_subscriber::EnvFilter::from_default_env();
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
        });
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let binary = std::env::var("DATDOT_NODE").expect("DATDOT_NODE names the node's binary");
        let log = fs::File::create(dir.join("node.log")).unwrap();
        let child = Command::new(binary)
            .args(["--chain", "dev", "--validator", "//Alice", "--rpc-port", &port.to_string(), "--dir"])
            .arg(dir.join("node"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, url: format!("ws://127.0.0.1:{port}") }
    }
}

impl Node {
    /// Kills it; its ledger is away then.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// A ledger and daemons, all on this machine.
pub struct World {
    pub node: Node,
    pub dir: TempDir,
}

pub struct Peer {
    pub name: &'static str,
    pub dir: PathBuf,
    pub daemon: Daemon,
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { node: Node::start(dir.path()), dir }
    }

    pub async fn peer(&self, name: &'static str) -> Peer {
        let dir = self.dir.path().join(name);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let account = Account::dev(&format!("//{name}")).unwrap();
            let listen = "127.0.0.1:0".parse().unwrap();
            let config = Config { listen, ..Config::new(&dir, &self.node.url, account) };
            match Daemon::start(config).await {
                Ok(daemon) => return Peer { name, dir, daemon },
                Err(error) if Instant::now() > deadline => panic!("{name}: {error}"),
                Err(_) => sleep(Duration::from_millis(200)).await,
            }
        }
    }

    pub async fn hosters<const N: usize>(&self, names: [&'static str; N]) -> Vec<Peer> {
        let mut peers = Vec::new();
        for name in names {
            let peer = self.peer(name).await;
            let order = HostOrder { space: 1 << 30, price: Amount(DAT), max_term: None, region: None };
            let offer = peer.ask(move |client| client.host(&order)).await.unwrap();
            assert_eq!(offer.standing, Standing::Open);
            peers.push(peer);
        }
        peers
    }

    pub fn file(&self, bytes: u64) -> PathBuf {
        let path = self.dir.path().join("file");
        let mut content = vec![0; bytes as usize];
        let mut state = 88_172_645_463_325_252_u64;
        for word in content.chunks_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
        }
        fs::write(&path, content).unwrap();
        path
    }
}

impl Peer {
    pub async fn ask<T: Send + 'static>(&self, question: impl FnOnce(&Client) -> T + Send + 'static) -> T {
        let client = Client::open(&self.dir).unwrap();
        spawn_blocking(move || question(&client)).await.unwrap()
    }

    pub async fn status(&self) -> Status {
        self.ask(|client| client.status()).await.unwrap()
    }

    /// Waits until the status is as it should be.
    pub async fn until(&self, what: &str, is: impl Fn(&Status) -> bool) -> Status {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status().await;
            if is(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "{}: {what}: {status:#?}", self.name);
            sleep(Duration::from_millis(300)).await;
        }
    }

    pub async fn publish(&self, path: PathBuf, replicas: u32, term: u32) -> Vec<Progress> {
        let wanted = Wanted { replicas, term, max_price: Some(Amount(2 * DAT)) };
        let order = PublishOrder { path, wanted: Some(wanted) };
        self.ask(move |client| client.publish(&order).unwrap().map(Result::unwrap).collect()).await
    }

    /// What was proven of the contract it has.
    pub async fn proves(&self, more: u32) -> Status {
        let before = self.status().await.contracts.iter().map(|contract| contract.proven).sum::<u32>();
        self.until("proves", |status| {
            status.contracts.iter().map(|contract| contract.proven).sum::<u32>() >= before + more
        })
        .await
    }

    pub fn data_files(&self) -> Vec<PathBuf> {
        let feeds = fs::read_dir(self.dir.join("store/feeds")).unwrap();
        feeds.map(|entry| entry.unwrap().path().join("data")).collect()
    }
}

pub fn done(steps: &[Progress]) -> (Key, u32) {
    match steps.last() {
        Some(Progress::Done { key, request: Some(request), .. }) => (*key, *request),
        other => panic!("{other:?} in {steps:?}"),
    }
}
