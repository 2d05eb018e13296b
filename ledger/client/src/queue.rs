//! The transactions of one account that are on their way, and which nonce is next. Decides; doesn't act.
//!
//! A transaction is sent again, byte by byte the same, when the node may have lost it: so it can't come into the chain twice. It
//! is given up only when its life is over, when it can't come into the chain any more. So its caller may always repeat it.

use datdot_market::Block;
use std::collections::BTreeMap;

/// A transaction that is in no block after so many is sent again.
const SEND_AGAIN_AFTER: Block = 6;

/// An account's transactions on their way, by nonce. `T` is who waits for one.
pub(crate) struct Queue<T> {
    flying: BTreeMap<u64, Flight<T>>,
}

/// A transaction on its way.
pub(crate) struct Flight<T> {
    pub bytes: Vec<u8>,
    /// It is in no block up to this one.
    pub since: Block,
    /// Last block that it can be in.
    pub last: Block,
    /// Best block when it was sent last.
    pub sent: Block,
    pub waiter: T,
}

impl Flight<()> {
    /// The same, with somebody who waits for it.
    pub fn waiting<T>(self, waiter: T) -> Flight<T> {
        let Self { bytes, since, last, sent, .. } = self;
        Flight { bytes, since, last, sent, waiter }
    }
}

impl<T> Queue<T> {
    pub fn new() -> Self {
        Self { flying: BTreeMap::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.flying.is_empty()
    }

    /// The nonce for another transaction; `pool` is the first that is used neither on the chain nor by what is ready in the node's pool.
    ///
    /// The pool may not know ours yet, or not any more. It may know others of this account. And it names the hole if one of ours was
    /// given up before later ones: that hole is filled first, or they would never come.
    pub fn nonce(&self, pool: u64) -> u64 {
        (pool..).find(|nonce| !self.flying.contains_key(nonce)).expect("fewer transactions fly than there are nonces")
    }

    pub fn fly(&mut self, nonce: u64, flight: Flight<T>) {
        let before = self.flying.insert(nonce, flight);
        debug_assert!(before.is_none(), "nonce() gives none that flies");
    }

    /// No block up to this one contains any of them.
    pub fn since(&self) -> Option<Block> {
        self.flying.values().map(|flight| flight.since).min()
    }

    /// Which of them are among the transactions of a block: place there, and nonce.
    pub fn landed<'a>(&self, transactions: impl Iterator<Item = &'a [u8]>) -> Vec<(u32, u64)> {
        let nonce_of = |bytes| self.flying.iter().find(|(_, flight)| flight.bytes == bytes).map(|(nonce, _)| *nonce);
        (0u32..).zip(transactions).filter_map(|(place, bytes)| Some((place, nonce_of(bytes)?))).collect()
    }

    /// Takes one out that has landed.
    pub fn take(&mut self, nonce: u64) -> Option<Flight<T>> {
        self.flying.remove(&nonce)
    }

    /// Takes out those whose life is over. Call it once all blocks up to `best` were looked at.
    pub fn lost(&mut self, best: Block) -> Vec<Flight<T>> {
        let over = |flight: &Flight<T>| flight.last <= best;
        let nonces: Vec<u64> = self.flying.iter().filter(|(_, flight)| over(flight)).map(|(nonce, _)| *nonce).collect();
        nonces.iter().filter_map(|nonce| self.flying.remove(nonce)).collect()
    }

    /// What to send again, lowest nonce first: all of it over a new connection, otherwise what takes long.
    pub fn again(&mut self, best: Block, new_connection: bool) -> Vec<Vec<u8>> {
        // The chain may stand lower than before, after a restart: sent in the future is sent too long ago, too.
        let due = |sent: Block| new_connection || !(sent..sent.saturating_add(SEND_AGAIN_AFTER)).contains(&best);
        let due = self.flying.values_mut().filter(|flight| due(flight.sent));
        due.map(|flight| {
            flight.sent = best;
            flight.bytes.clone()
        })
        .collect()
    }
}
