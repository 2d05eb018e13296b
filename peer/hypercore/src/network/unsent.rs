//! Answers that remotes have not taken yet are our memory, all connections together: when it is used up, nobody is answered for a
//! moment, and who takes next to nothing goes sooner than otherwise.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Bytes of all connections. Only those who ask for large blocks come near: a connection has 1 MiB and one block.
const MOST: usize = if cfg!(test) { 4 << 20 } else { 512 << 20 };

/// Bytes that wait on all connections of a network.
#[derive(Clone, Debug, Default)]
pub(super) struct Unsent(Arc<AtomicUsize>);

/// Those of one connection.
#[derive(Debug)]
pub(super) struct Part {
    all: Unsent,
    own: AtomicUsize,
}

impl Unsent {
    /// The part of a new connection.
    pub fn part(&self) -> Arc<Part> {
        Arc::new(Part { all: self.clone(), own: AtomicUsize::new(0) })
    }
}

impl Part {
    /// Whether all connections together have so much that nothing more is to be answered.
    pub fn is_full(&self) -> bool {
        self.all.0.load(Ordering::Acquire) >= MOST
    }

    /// So many bytes more wait.
    pub fn add(&self, bytes: usize) {
        self.own.fetch_add(bytes, Ordering::AcqRel);
        self.all.0.fetch_add(bytes, Ordering::AcqRel);
    }

    /// So many wait now.
    pub fn set(&self, bytes: usize) {
        let before = self.own.swap(bytes, Ordering::AcqRel);
        // Both wrap: the sum is right, if there are fewer.
        self.all.0.fetch_add(bytes.wrapping_sub(before), Ordering::AcqRel);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        key::Keypair,
        messages::{Handshake, Message, NodeRequest, Request, Sync},
        network::{Config, Network},
        store::Store,
    };
    use datdot_wire::{
        connection::{Connection, Options},
        mux::Mux,
        noise::{self, Role},
    };
    use std::time::Duration;
    use tokio::io::{duplex, split};

    #[test]
    fn all_connections_share_the_memory_for_answers() {
        let all = Unsent::default();
        let parts = [all.part(), all.part(), all.part()];
        parts.iter().for_each(|part| part.add(MOST / 3));
        assert!(!parts[0].is_full());
        parts[1].set(MOST / 2);
        assert!(parts[0].is_full() && all.part().is_full());
        let [one, other, last] = parts;
        drop(other);
        assert!(!one.is_full(), "who goes leaves nothing");
        drop((one, last));
        assert_eq!(all.0.load(Ordering::Acquire), 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn those_who_ask_and_do_not_read_hold_no_more_than_that() {
        let (dir, options) = (tempfile::tempdir().expect("a folder"), Options::default());
        let keys = |name| noise::Keypair::from_seed(&[name; 32]);
        let store = Store::open(dir.path()).expect("the folder is free");
        let network = Network::start(store, Config::new(keys(1))).await.expect("it listens nowhere");
        let feed = network.store().create(&Keypair::from_seed([1; 32])).expect("room");
        feed.append(vec![vec![7; 1 << 20].into(); 8]).await.expect("an author appends");
        let mut readers = Vec::new();
        for name in 2..14 {
            let ((our_in, our_out), (their_in, their_out)) = {
                let (ours, theirs) = duplex(64 << 10);
                (split(ours), split(theirs))
            };
            let (ours, theirs) = (keys(1), keys(name));
            let ours = Connection::handshake(our_in, our_out, Role::Responder, &ours, None, &options);
            let theirs = Connection::handshake(their_in, their_out, Role::Initiator, &theirs, None, &options);
            let (ours, mut reader) = tokio::try_join!(ours, theirs).expect("honest peers");
            network.attach(ours).expect("a place");
            let mut mux = Mux::new();
            let handshake = Handshake { seeks: true, capability: feed.key().capability(true, &reader.handshake_hash) };
            let channel = mux.open("hypercore/alpha", &feed.discovery().0, &handshake.encode()).expect("room");
            let request = |index| {
                let block = Some(NodeRequest { index, nodes: 0 });
                Message::Request(Request { id: index + 1, block, ..Request::default() })
            };
            let first = Message::Sync(Sync { downloading: true, ..Sync::default() });
            for message in [first].into_iter().chain((0..8).map(request)) {
                let (kind, body) = message.encode();
                mux.send(channel, kind, &body).expect("it is open");
            }
            for frame in std::iter::from_fn(|| mux.take_output()) {
                reader.writer.queue(&frame).expect("small");
            }
            reader.writer.flush().await.expect("it is read");
            readers.push(reader);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let all = network.0.unsent.clone();
        let unsent = all.0.load(Ordering::Acquire);
        assert!(unsent > MOST / 2 && unsent < MOST + (2 << 20), "{unsent}");
        network.close().await;
        assert_eq!(all.0.load(Ordering::Acquire), 0);
    }
}
