//! A whole network in this process: a ledger node with one validator, hosters, and the user's own daemon.
//!
//! ```text
//! DIR/            the user's daemon, //Alice
//!   ledger/       the node
//!   hosters/bob/  …/charlie/ …/dave/
//! ```
//!
//! Its peers find each other through a DHT of its own, that knows nothing of the world's.

use crate::place::make_dir;
use anyhow::{Context, Result};
use datdot_daemon::{
    Config, Daemon,
    swarm::{LocalDht, Settings},
};
use datdot_ledger::Account;
use datdot_market::Balance;
use datdot_node::{Chain, Node, Options};
use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::{Path, PathBuf},
};

/// The hosters' names; their accounts are `//Bob`, `//Charlie` and `//Dave`.
pub const HOSTERS: [&str; 3] = ["bob", "charlie", "dave"];

/// A running network.
pub struct DevNetwork {
    node: Node,
    dht: LocalDht,
    daemons: Vec<Daemon>,
    dir: PathBuf,
}

/// What is in the network besides the ledger.
pub struct Parts {
    /// How many of [`HOSTERS`].
    pub hosters: usize,
    /// Whether the user has a daemon in it.
    pub user: bool,
    /// Amount earned from which on hosters have it paid out.
    pub settle_from: Option<Balance>,
}

impl DevNetwork {
    /// Starts everything in `dir`, or goes on where it was.
    pub async fn start(dir: &Path, rpc_port: u16, parts: Parts) -> Result<Self> {
        // Before the node makes it for everybody to read.
        make_dir(dir)?;
        let options = Options { rpc_port, ..Options::new(Chain::Dev, dir.join("ledger")) };
        let node = match datdot_node::start(options).await {
            Err(error @ datdot_node::Error::Port { .. }) => {
                return Err(error).context("name another port with --rpc-port, or stop what uses this one");
            }
            Err(error @ datdot_node::Error::InUse { .. }) => {
                return Err(error).context("this network runs already; --dir names the folder of another one");
            }
            other => other?,
        };
        let dht = LocalDht::start().await.context("the network's own DHT does not start")?;
        let mut network = Self { node, dht, daemons: Vec::new(), dir: dir.to_owned() };
        for name in HOSTERS.iter().take(parts.hosters) {
            let mut config = network.config(network.hoster(name), name)?;
            config.policy.settle_from = parts.settle_from.unwrap_or(config.policy.settle_from);
            network.add(config).await?;
        }
        // Last: its api.json says that the network is there.
        if parts.user {
            network.add(network.config(dir.to_owned(), "alice")?).await?;
        }
        Ok(network)
    }

    /// Where the ledger is asked.
    pub fn rpc(&self) -> String {
        format!("ws://{}", self.node.rpc)
    }

    /// Where the network's DHT begins.
    pub fn bootstrap(&self) -> SocketAddrV4 {
        self.dht.bootstrap()
    }

    /// The folder of a hoster.
    pub fn hoster(&self, name: &str) -> PathBuf {
        self.dir.join("hosters").join(name)
    }

    /// Waits until the node can't go on; gives the reason.
    pub async fn failed(&mut self) -> datdot_node::Error {
        self.node.stopped().await
    }

    /// Stops everything and waits until all is on disk.
    pub async fn stop(mut self) -> Result<()> {
        while let Some(daemon) = self.daemons.pop() {
            daemon.stop().await;
        }
        Ok(self.node.stop().await?)
    }

    fn config(&self, dir: PathBuf, name: &str) -> Result<Config> {
        let account = format!("//{}{}", name[..1].to_ascii_uppercase(), &name[1..]);
        let rpc = self.rpc();
        Ok(Config {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            rpc: Some(rpc.clone()),
            swarm: Settings::Through(vec![self.bootstrap()]),
            ..Config::new(dir, rpc, Account::dev(&account)?)
        })
    }

    async fn add(&mut self, config: Config) -> Result<()> {
        let dir = config.dir.clone();
        let daemon =
            Daemon::start(config).await.with_context(|| format!("the daemon in {} does not start", dir.display()))?;
        self.daemons.push(daemon);
        Ok(())
    }
}
