//! Where a node of the DHT begins: at nodes that everybody knows, and at those that it knew the last time.

use crate::files;
use datdot_hyperswarm::dht::{self, Dht, Id, Role, Search, packet::Command};
use serde::{Deserialize, Serialize};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::Path,
    time::Duration,
};
use tokio::time::{sleep, timeout};

/// The file with what is known of the DHT.
pub(super) const FILE: &str = "dht.json";
/// Nodes that are taken from it.
const MAX_KNOWN: usize = 512;
/// How long a name may take to be looked up.
const LOOK_UP: Duration = Duration::from_secs(5);
/// A network that isn't there is looked for again after so long.
const AGAIN: Duration = Duration::from_secs(30);

/// The nodes at which all of Hyperswarm begins: their addresses, and the names under which they are if they move.
pub const PUBLIC: [(SocketAddrV4, &str); 3] = [
    (SocketAddrV4::new(Ipv4Addr::new(88, 99, 3, 86), 49_737), "node1.hyperdht.org:49737"),
    (SocketAddrV4::new(Ipv4Addr::new(142, 93, 90, 113), 49_737), "node2.hyperdht.org:49737"),
    (SocketAddrV4::new(Ipv4Addr::new(138, 68, 147, 8), 49_737), "node3.hyperdht.org:49737"),
];

/// Whether and how peers are found by the keys of feeds alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Settings {
    /// They aren't.
    #[default]
    Off,
    /// Through the [public](PUBLIC) nodes. On a dev chain there is no swarm then: its peers are the world's business no more
    /// than the world is theirs.
    Public,
    /// Through these nodes.
    Through(Vec<SocketAddrV4>),
}

impl Settings {
    /// The same as it is shown.
    pub(super) fn names(&self) -> Vec<String> {
        match self {
            Settings::Off => vec![],
            Settings::Public => PUBLIC.iter().map(|(_, name)| (*name).to_owned()).collect(),
            Settings::Through(nodes) => nodes.iter().map(ToString::to_string).collect(),
        }
    }

    fn addresses(&self) -> Vec<SocketAddrV4> {
        match self {
            Settings::Off => vec![],
            Settings::Public => PUBLIC.iter().map(|(address, _)| *address).collect(),
            Settings::Through(nodes) => nodes.clone(),
        }
    }
}

/// What is written down.
#[derive(Serialize, Deserialize)]
struct Known {
    /// Through whom we came to know them: another network's nodes are of no use, and none of our business.
    bootstrap: Vec<SocketAddrV4>,
    nodes: Vec<SocketAddrV4>,
}

/// The nodes that were known the last time, if that was the same network. A file that can't be understood is as good as none.
pub(super) fn load(path: &Path, settings: &Settings) -> io::Result<Vec<SocketAddrV4>> {
    let Some(content) = files::read(path)? else { return Ok(vec![]) };
    let Ok(Known { bootstrap, mut nodes }) = serde_json::from_slice(&content) else { return Ok(vec![]) };
    nodes.truncate(if bootstrap == settings.addresses() { MAX_KNOWN } else { 0 });
    Ok(nodes)
}

pub(super) fn save(path: &Path, settings: &Settings, nodes: &[SocketAddrV4]) -> io::Result<()> {
    let known = Known { bootstrap: settings.addresses(), nodes: nodes.iter().take(MAX_KNOWN).copied().collect() };
    files::replace(path, &serde_json::to_vec(&known)?)
}

/// How our node begins: a guest that becomes a host once its address proves to be stable and open.
pub(super) fn node(settings: &Settings, listen: SocketAddr, known: Vec<SocketAddrV4>) -> dht::Settings {
    let host = match listen {
        SocketAddr::V4(listen) => *listen.ip(),
        SocketAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    };
    // Nobody needs a host that is gone with this machine's loopback.
    let role = if host.is_loopback() { Role::Guest } else { Role::Adaptive };
    let node = dht::Config { bootstrap: settings.addresses(), known, role, ..dht::Config::default() };
    dht::Settings { node, host, port: listen.port() }
}

/// Returns as soon as any node of the DHT is known. If none answers at its address, its name is looked up.
pub(super) async fn find_the_network(dht: &Dht, settings: &Settings) {
    loop {
        if dht.bootstrapped().await.is_err() || dht.look(|node| node.known()).await.is_ok_and(|known| known > 0) {
            return;
        }
        tracing::info!(target: "swarm", "no node of the DHT answers; trying their names");
        if let Settings::Public = settings {
            for (_, name) in PUBLIC {
                for address in look_up(name).await {
                    // Whoever answers is known from then on.
                    _ = dht.ping(address).await;
                }
            }
        }
        let walk = Search::new(Id(files::fresh()), Command::FindNode);
        if let Ok(walk) = dht.search(walk).await {
            _ = walk.finished().await;
        }
        if dht.look(|node| node.known()).await.is_ok_and(|known| known == 0) {
            sleep(AGAIN).await;
        }
    }
}

async fn look_up(name: &str) -> Vec<SocketAddrV4> {
    let Ok(Ok(found)) = timeout(LOOK_UP, tokio::net::lookup_host(name)).await else { return vec![] };
    let is_v4 = |address| if let SocketAddr::V4(address) = address { Some(address) } else { None };
    found.filter_map(is_v4).take(4).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_known_is_known_again_in_the_same_network_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let nodes: Vec<SocketAddrV4> = (0..600).map(|n| SocketAddrV4::new([1, 2, 3, 4].into(), 1_000 + n)).collect();
        let local = Settings::Through(vec!["127.0.0.1:49737".parse().unwrap()]);
        assert_eq!(load(&path, &local).unwrap(), []);
        save(&path, &local, &nodes).unwrap();
        assert_eq!(load(&path, &local).unwrap(), nodes[..MAX_KNOWN]);
        assert_eq!(load(&path, &Settings::Public).unwrap(), []);
        std::fs::write(&path, "{\"bootstrap\":[").unwrap();
        assert_eq!(load(&path, &local).unwrap(), [], "a torn file is none");
    }
}
