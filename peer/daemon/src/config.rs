//! What a daemon is told at its start.

use crate::swarm::Settings;
use datdot_api::LimitsOrder;
use datdot_ledger::Account;
use datdot_roles::hoster::Policy;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

/// Settings of one daemon.
#[derive(Debug)]
pub struct Config {
    /// Folder with all of its state; used by one daemon at a time.
    pub dir: PathBuf,
    /// The ledger's node: `ws://HOST:PORT`.
    pub ledger: String,
    /// Who signs. No other daemon may use the account at the same time.
    pub account: Account,
    /// Where peers can connect. Port 0: any free one.
    pub listen: SocketAddr,
    /// What the ledger is told about where peers can connect, if that is not `listen`: up to four public addresses.
    pub addresses: Vec<SocketAddr>,
    /// Whether the ledger is told any address; if not, the swarm has to do.
    pub name_addresses: bool,
    /// Whether and how peers are found by the keys of feeds alone, and this one by them.
    pub swarm: Settings,
    /// Port of the API on 127.0.0.1. Port 0: any free one.
    pub api_port: u16,
    /// Address of the node's RPC, if the node runs in the same process; only to be shown.
    pub rpc: Option<String>,
    /// Whether to dial, and to name, loopback and private addresses. `None`: only on a chain with the parameters of the
    /// dev chain, where all peers are on one machine. Addresses that the user names are always dialled.
    pub allow_private_addresses: Option<bool>,
    /// Limits of what passes between peers that count from this start on, whatever was ordered before.
    pub limits: LimitsOrder,
    /// Connections with peers at a time.
    pub max_connections: usize,
    /// Contracts whose data is fetched at a time.
    pub max_fetches: usize,
    /// Bytes of the disk that are left free.
    pub spare_bytes: u64,
    /// Longest term of an offer in days, if the order doesn't say.
    pub max_term_days: u32,
    /// What the hoster decides by.
    pub policy: Policy,
}

impl Config {
    /// The defaults: peers anywhere on port 3282, no swarm, an API on any free port.
    pub fn new(dir: impl Into<PathBuf>, ledger: impl Into<String>, account: Account) -> Self {
        Self {
            dir: dir.into(),
            ledger: ledger.into(),
            account,
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 3282),
            addresses: Vec::new(),
            name_addresses: true,
            swarm: Settings::Off,
            api_port: 0,
            rpc: None,
            allow_private_addresses: None,
            limits: LimitsOrder::default(),
            max_connections: 256,
            max_fetches: 4,
            spare_bytes: 256 << 20,
            max_term_days: 365,
            policy: Policy::default(),
        }
    }
}
