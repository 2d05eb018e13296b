//! What a guest or host of the DHT does with it: find, announce, store.

use super::driver::{Dht, Ended, Searching};
use super::id::Id;
use super::node::Outcome;
use super::packet::{Command, Token};
use super::query::{Commit, Reply, Search};
use super::record::{Identity, Mutable, Peer, Peers, PublicKey};
use super::table::K;
use datdot_wire::encoding::Writer;
use std::net::SocketAddrV4;

/// A record that was not stored anywhere, or a search that could not end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The node has ended.
    #[error(transparent)]
    Ended(#[from] Ended),
    /// Of the closest nodes that answered, if any did, none took it.
    #[error("none of {asked} nodes stored it")]
    Refused {
        /// Nodes that were asked.
        asked: usize,
    },
}

/// Peers that one node knows of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// The node.
    pub from: SocketAddrV4,
    /// At most 20 of the peers that announced themselves there.
    pub found: Peers,
}

/// The answers to a lookup, as they come.
#[derive(Debug)]
pub struct Lookups(Searching);

impl Lookups {
    /// What the next node knows, `None` after the last.
    pub async fn next(&mut self) -> Option<Lookup> {
        while let Some(Reply { from, value, .. }) = self.0.next().await {
            if let Some(found) = value.as_deref().and_then(|value| Peers::decode(value).ok()) {
                return Some(Lookup { from, found });
            }
        }
        None
    }

    /// All peers, each once, with the relays that the first node named.
    pub async fn all(mut self) -> Vec<Peer> {
        let mut peers = std::collections::BTreeMap::new();
        while let Some(lookup) = self.next().await {
            for peer in lookup.found.peers {
                peers.entry(peer.key).or_insert(peer);
            }
        }
        peers.into_values().collect()
    }
}

impl Dht {
    /// Looks for peers that announced themselves at `topic`.
    pub async fn lookup(&self, topic: Id) -> Result<Lookups, Ended> {
        self.search(Search::new(topic, Command::Lookup)).await.map(Lookups)
    }

    /// Looks for relays of a peer; the answers' values are [`Peer`]s.
    pub async fn find_peer(&self, key: &PublicKey) -> Result<Searching, Ended> {
        self.search(Search::new(Id::of(key), Command::FindPeer)).await
    }

    /// Announces at `topic` that `identity` is here, reached through `relays`, for the next 20 minutes.
    pub async fn announce(
        &self,
        topic: Id,
        identity: &Identity,
        relays: &[SocketAddrV4],
    ) -> Result<Outcome, StoreError> {
        let (identity, relays) = (identity.clone(), relays.to_vec());
        let commit = Commit::Announce { identity, relays, bump: 0, at: K };
        self.store(Search { commit, ..Search::new(topic, Command::Lookup) }).await
    }

    /// Lets the nodes at `topic` forget that `identity` is here.
    pub async fn unannounce(&self, topic: Id, identity: &Identity) -> Result<Outcome, Ended> {
        let search = Search { clear: Some(identity.clone()), ..Search::new(topic, Command::Lookup) };
        self.search(search).await?.finished().await
    }

    /// Stores a version of the author's record, for 48 hours.
    pub async fn put_mutable(&self, author: &Identity, seq: u64, value: &[u8]) -> Result<Outcome, StoreError> {
        let value = Mutable::signed(author, seq, value).encode_put(&author.public());
        let commit = Commit::Store { command: Command::MutablePut, value };
        self.store(Search { commit, ..search_mutable(&author.public(), 0) }).await
    }

    /// The newest version of an author's record with at least this number.
    pub async fn get_mutable(&self, author: &PublicKey, seq: u64) -> Result<Option<Mutable>, Ended> {
        let mut search = self.search(search_mutable(author, seq)).await?;
        let mut newest: Option<Mutable> = None;
        while let Some(reply) = search.next().await {
            let Some(Ok(record)) = reply.value.as_deref().map(Mutable::decode) else { continue };
            let is_newer = newest.as_ref().map_or(record.seq >= seq, |newest| record.seq > newest.seq);
            if is_newer && record.is_by(author) {
                newest = Some(record);
            }
        }
        Ok(newest)
    }

    /// Stores bytes for 48 hours; they're found at [`Id::of`] them.
    pub async fn put_immutable(&self, value: &[u8]) -> Result<Outcome, StoreError> {
        let commit = Commit::Store { command: Command::ImmutablePut, value: value.to_vec() };
        self.store(Search { commit, ..Search::new(Id::of(value), Command::ImmutableGet) }).await
    }

    /// The bytes that hash to `name`.
    pub async fn get_immutable(&self, name: Id) -> Result<Option<Vec<u8>>, Ended> {
        let mut search = self.search(Search::new(name, Command::ImmutableGet)).await?;
        while let Some(reply) = search.next().await {
            if let Some(value) = reply.value.filter(|value| Id::of(value) == name) {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Whether the node at `to` answers within 4 s.
    pub async fn ping(&self, to: SocketAddrV4) -> Result<Option<Reply>, Ended> {
        self.ask(to, Command::Ping, None, None::<Token>, None).await
    }

    async fn store(&self, search: Search) -> Result<Outcome, StoreError> {
        let outcome = self.search(search).await?.finished().await?;
        match outcome.committed.len() {
            0 => Err(StoreError::Refused { asked: outcome.closest.len() }),
            _ => Ok(outcome),
        }
    }
}

fn search_mutable(author: &PublicKey, seq: u64) -> Search {
    let mut value = Writer::new();
    value.uint(seq);
    Search { value: Some(value.into_vec()), ..Search::new(Id::of(author), Command::MutableGet) }
}
