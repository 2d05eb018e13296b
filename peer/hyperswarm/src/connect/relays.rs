//! Which nodes know the way to whom: remembered from the last connection, so that the next one needs no search.

use crate::dht::PublicKey;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddrV4;

/// Peers that are remembered; the one that was connected to the longest ago is forgotten first.
const MAX_PEERS: usize = 4_096;
/// Nodes for each.
const MAX_NODES: usize = 3;

/// The nodes, by peer.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    nodes: HashMap<PublicKey, (u64, Vec<SocketAddrV4>)>,
    order: BTreeMap<u64, PublicKey>,
    next: u64,
}

impl Relays {
    /// Nodes that knew the way to `peer` last time.
    pub fn of(&self, peer: &PublicKey) -> Vec<SocketAddrV4> {
        self.nodes.get(peer).map_or(Vec::new(), |(_, nodes)| nodes.clone())
    }

    /// Remembers nodes, the best first.
    pub fn remember(&mut self, peer: PublicKey, nodes: impl Iterator<Item = SocketAddrV4>) {
        let nodes: Vec<_> = nodes.take(MAX_NODES).collect();
        self.forget(&peer);
        if nodes.is_empty() {
            return;
        }
        if self.nodes.len() >= MAX_PEERS
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.nodes.remove(&oldest);
        }
        self.next += 1;
        self.order.insert(self.next, peer);
        self.nodes.insert(peer, (self.next, nodes));
    }

    /// Forgets them: nobody answered there.
    pub fn forget(&mut self, peer: &PublicKey) {
        if let Some((place, _)) = self.nodes.remove(peer) {
            self.order.remove(&place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_nodes_of_the_latest_peers_are_remembered() {
        let node = |n: u16| SocketAddrV4::new([1, 2, 3, 4].into(), n);
        let peer = |n: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&n.to_le_bytes());
            key
        };
        let mut relays = Relays::default();
        for n in 0..=MAX_PEERS {
            relays.remember(peer(n), (1..9).map(node));
        }
        assert_eq!(relays.of(&peer(0)), []);
        assert_eq!(relays.of(&peer(1)), [node(1), node(2), node(3)]);
        // Whoever is connected to again is the latest.
        relays.remember(peer(1), [node(7)].into_iter());
        relays.remember(peer(0), [node(8)].into_iter());
        assert_eq!((relays.of(&peer(1)), relays.of(&peer(2))), (vec![node(7)], vec![]));
        relays.forget(&peer(1));
        assert_eq!(
            (relays.of(&peer(1)).len(), relays.nodes.len(), relays.order.len()),
            (0, MAX_PEERS - 1, MAX_PEERS - 1)
        );
    }
}
