//! The tasks that search a topic, and that withdraw from all of them.

use super::crowd::{Searched, Ticket};
use super::{Change, FAREWELL, WITHDRAWN_AT_ONCE};
use crate::connect::Announced;
use crate::dht::packet::Command;
use crate::dht::table::K;
use crate::dht::{Commit, Dht, Ended, Id, Identity, Peers, PublicKey, Search};
use std::net::SocketAddrV4;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Withdraws announcements, as many as there's time for: `topics` come with the nodes that keep them.
pub(super) async fn withdraw(dht: &Dht, identity: &Identity, topics: Vec<(Id, Vec<SocketAddrV4>)>) {
    let mut farewells = JoinSet::new();
    let all = async {
        for (topic, nodes) in topics {
            if farewells.len() >= WITHDRAWN_AT_ONCE {
                farewells.join_next().await;
            }
            let (dht, clear) = (dht.clone(), Some(identity.clone()));
            farewells.spawn(async move {
                let search = Search { clear, nodes, ..Search::new(topic, Command::Lookup) };
                if let Ok(searching) = dht.search(search).await {
                    _ = searching.finished().await;
                }
            });
        }
        while farewells.join_next().await.is_some() {}
    };
    _ = tokio::time::timeout(FAREWELL, all).await;
}

/// A search that is to be made.
pub(super) struct Look {
    pub ticket: Ticket,
    pub search: Search,
    /// Who is announced in the end, and when others can reach it.
    pub announce: Option<(Identity, Announced)>,
}

/// Searches a topic, and tells whom it finds.
pub(super) async fn look(dht: &Dht, look: Look, tell: &mpsc::UnboundedSender<Change>) -> Change {
    let Look { ticket, mut search, announce } = look;
    let topic = search.target;
    if let Some((identity, announced)) = announce {
        let relays = relays(dht, identity.public(), announced).await;
        search.commit = Commit::Announce { identity, relays, bump: 0, at: 20 };
    }
    let nothing = Change::Searched(ticket, topic, Searched::default());
    let Ok(mut searching) = dht.search(search).await else { return nothing };
    while let Some(reply) = searching.next().await {
        let found = reply.value.as_deref().and_then(|value| Peers::decode(value).ok()).unwrap_or_default();
        // No honest host names more at once.
        let peers = found.peers.into_iter().take(K);
        let peers: Vec<_> = peers.map(|peer| (peer.key, peer.relays)).collect();
        if !peers.is_empty() {
            _ = tell.send(Change::Found(topic, peers));
        }
    }
    let Ok(outcome) = searching.finished().await else { return nothing };
    let closest = outcome.closest.iter().map(|reply| reply.from).collect();
    let announced = !outcome.committed.is_empty();
    Change::Searched(ticket, topic, Searched { announced, closest, requests: outcome.requests })
}

/// Through whom we are reached. Without relays nobody could; a while later they are known, or there is no network.
async fn relays(dht: &Dht, own: PublicKey, announced: Announced) -> Vec<SocketAddrV4> {
    match tokio::time::timeout(Duration::from_secs(10), announced.wait()).await {
        Ok(Ok(())) => dht.look(move |node| node.relays(&own)).await.unwrap_or_default(),
        Ok(Err(Ended)) | Err(_) => Vec::new(),
    }
}
