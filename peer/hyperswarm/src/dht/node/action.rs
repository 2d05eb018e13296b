//! What a node wants done, and what it tells.

use super::{Call, Relay};
use crate::dht::Socket;
use crate::dht::bootstrap::Name;
use crate::dht::nat::Outside;
use crate::dht::query::Reply;
use crate::dht::record::PublicKey;
use std::net::SocketAddrV4;

/// Names a search until it is [finished](Event::Finished).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SearchId(pub(super) u64);

/// Names a question until it is [answered](Event::Answer).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuestionId(pub(super) u64);

/// What a node wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send a datagram.
    Send {
        /// From where.
        socket: Socket,
        /// To whom.
        to: SocketAddrV4,
        /// At most a few hundred bytes; about 1.2 KB for an answer with 20 peers.
        datagram: Vec<u8>,
    },
    /// Ask the DNS for these names, and say what it knows with [`Node::on_resolved`](super::Node::on_resolved), if only that it's nothing.
    Resolve(Vec<Name>),
    /// Tell whoever runs the node.
    Tell(Event),
}

/// What a node tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The first walk is done: the table has what there is.
    Bootstrapped,
    /// Our address as others see it changed, or who we are.
    Reach(Reach),
    /// Whether anybody answers us; at first that's taken for granted.
    Online(bool),
    /// A node answered a search.
    Found {
        /// Which.
        search: SearchId,
        /// The answer.
        reply: Reply,
    },
    /// A search is over.
    Finished {
        /// Which.
        search: SearchId,
        /// How it went.
        outcome: Outcome,
    },
    /// A [question](super::Node::ask) was answered, or `None`: not within 4 s.
    Answer {
        /// Which.
        question: QuestionId,
        /// The answer.
        reply: Option<Reply>,
    },
    /// Nodes pass on to us now what is meant for a [server](super::Node::listen); none if no node was found that does.
    Listening {
        /// The server.
        key: PublicKey,
        /// These nodes.
        relays: Vec<Relay>,
    },
    /// Somebody calls a server of ours; to be answered by [`Node::answer_call`](super::Node::answer_call).
    Call(Call),
}

/// How others reach us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Our address outside, if others agree on it.
    pub outside: Option<Outside>,
    /// Whether strangers don't reach our server socket, as far as is known.
    pub firewalled: bool,
    /// Whether we are a node of the DHT that others name, and not a guest.
    pub host: bool,
}

/// How a search went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The closest nodes that answered, closest first, at most 20.
    pub closest: Vec<Reply>,
    /// Those of them that did what they were asked in the end.
    pub committed: Vec<SocketAddrV4>,
    /// Answers on the way.
    pub replies: usize,
    /// Nodes on the way that gave an error or no answer.
    pub errors: usize,
    /// Requests that were made: on the way, to withdraw, and in the end. Those that were repeated count once.
    pub requests: usize,
    /// How many nodes lay between us and the closest.
    pub hops: u32,
}
