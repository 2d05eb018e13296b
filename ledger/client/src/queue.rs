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

    /// No block after this one contains any of them.
    pub fn until(&self) -> Option<Block> {
        self.flying.values().map(|flight| flight.last).max()
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeSet, VecDeque};

    const LIFE: Block = 8;

    /// A transaction of the model, as its bytes: nonce, last block, call.
    fn bytes(nonce: u64, last: Block, call: u32) -> Vec<u8> {
        [&nonce.to_le_bytes()[..], &last.to_le_bytes(), &call.to_le_bytes()].concat()
    }

    fn nonce_of(bytes: &[u8]) -> u64 {
        u64::from_le_bytes(bytes[..8].try_into().unwrap())
    }

    fn last_of(bytes: &[u8]) -> Block {
        Block::from_le_bytes(bytes[8..12].try_into().unwrap())
    }

    fn call_of(bytes: &[u8]) -> u32 {
        u32::from_le_bytes(bytes[12..].try_into().unwrap())
    }

    /// A chain with a node whose pool can lose transactions, and an account that submits to it.
    struct World {
        queue: Queue<u32>,
        blocks: Vec<Vec<Vec<u8>>>,
        pool: BTreeMap<u64, Vec<u8>>,
        calls: u32,
        landed: BTreeSet<u32>,
        lost: BTreeSet<u32>,
        refused: BTreeSet<u32>,
        searched: usize,
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// So many calls in a row, faster than blocks.
        Submit(u8),
        /// A block with up to so many transactions.
        Block(u8),
        /// The node restarts: its pool is empty.
        Restart,
        /// The pool drops one transaction.
        Drop(u8),
        /// Another wallet uses the account.
        Stranger,
    }

    impl World {
        fn new() -> Self {
            Self {
                queue: Queue::new(),
                blocks: vec![vec![]],
                pool: BTreeMap::new(),
                calls: 0,
                landed: BTreeSet::new(),
                lost: BTreeSet::new(),
                refused: BTreeSet::new(),
                searched: 0,
            }
        }

        fn best(&self) -> Block {
            self.blocks.len() as Block - 1
        }

        fn chain_nonce(&self) -> u64 {
            self.blocks.iter().flatten().count() as u64
        }

        fn pool_nonce(&self) -> u64 {
            (self.chain_nonce()..).find(|nonce| !self.pool.contains_key(nonce)).unwrap()
        }

        fn send(&mut self, bytes: Vec<u8>) -> bool {
            let nonce = nonce_of(&bytes);
            let fits = nonce >= self.chain_nonce() && last_of(&bytes) > self.best() && !self.pool.contains_key(&nonce);
            if fits {
                self.pool.insert(nonce, bytes);
            }
            fits
        }

        fn submit(&mut self) {
            let call = self.calls;
            self.calls += 1;
            let nonce = self.queue.nonce(self.pool_nonce());
            let (since, last) = (self.best(), self.best() + LIFE);
            let bytes = bytes(nonce, last, call);
            if self.send(bytes.clone()) {
                self.queue.fly(nonce, Flight { bytes, since, last, sent: since, waiter: call });
            } else {
                self.refused.insert(call);
            }
        }

        fn block(&mut self, room: usize) {
            let number = self.best() + 1;
            let mut block = Vec::new();
            for nonce in self.chain_nonce().. {
                match self.pool.get(&nonce).filter(|bytes| last_of(bytes) >= number && block.len() < room) {
                    Some(bytes) => block.push(bytes.clone()),
                    None => break,
                }
            }
            self.blocks.push(block);
            let next = self.chain_nonce();
            self.pool.retain(|nonce, bytes| *nonce >= next && last_of(bytes) > number);
            self.look(false);
        }

        fn look(&mut self, new_connection: bool) {
            let since = self.queue.since().unwrap_or(self.best()) as usize;
            for number in (self.searched + 1).max(since + 1)..self.blocks.len() {
                for (_, nonce) in self.queue.landed(self.blocks[number].iter().map(|bytes| &bytes[..])) {
                    self.landed.insert(self.queue.take(nonce).unwrap().waiter);
                }
            }
            self.searched = self.blocks.len() - 1;
            self.lost.extend(self.queue.lost(self.best()).into_iter().map(|flight| flight.waiter));
            for bytes in self.queue.again(self.best(), new_connection) {
                self.send(bytes);
            }
        }

        fn step(&mut self, step: Step) {
            match step {
                Step::Submit(calls) => (0..calls).for_each(|_| self.submit()),
                Step::Block(room) => self.block(room.into()),
                Step::Restart => {
                    self.pool.clear();
                    self.look(true);
                }
                Step::Drop(which) => {
                    let nonce = self.pool.keys().nth(which.into()).copied();
                    nonce.map(|nonce| self.pool.remove(&nonce));
                }
                Step::Stranger => {
                    let nonce = self.pool_nonce();
                    self.send(bytes(nonce, self.best() + LIFE, u32::MAX));
                }
            }
        }

        fn on_chain(&self, call: u32) -> usize {
            self.blocks.iter().flatten().filter(|bytes| call_of(bytes) == call).count()
        }
    }

    #[test]
    fn quick_calls_in_a_row_come_into_one_block_in_order() {
        let mut world = World::new();
        world.step(Step::Submit(5));
        world.step(Step::Block(10));
        let calls: VecDeque<_> = world.blocks[1].iter().map(|bytes| call_of(bytes)).collect();
        assert_eq!(calls, [0, 1, 2, 3, 4]);
        assert_eq!(world.landed.len(), 5);
    }

    #[test]
    fn what_a_restarted_node_forgot_is_sent_again() {
        let mut world = World::new();
        world.step(Step::Submit(3));
        world.step(Step::Restart);
        world.step(Step::Block(10));
        assert_eq!(world.landed.len(), 3);
    }

    #[test]
    fn a_call_after_a_restart_does_not_take_the_nonce_of_one_that_is_sent_again() {
        let mut world = World::new();
        world.step(Step::Submit(2));
        world.pool.clear();
        world.step(Step::Submit(1));
        world.look(true);
        world.step(Step::Block(10));
        assert_eq!((world.landed.len(), world.refused.len()), (3, 0));
    }

    #[test]
    fn what_the_pool_dropped_silently_is_sent_again_after_some_blocks() {
        let mut world = World::new();
        world.step(Step::Submit(1));
        world.step(Step::Drop(0));
        (0..SEND_AGAIN_AFTER).for_each(|_| world.step(Step::Block(10)));
        assert!(world.landed.is_empty());
        world.step(Step::Block(10));
        assert_eq!(world.landed.len(), 1);
    }

    #[test]
    fn a_chain_that_stands_lower_after_a_restart_is_sent_everything() {
        let mut queue = Queue::new();
        queue.fly(0, Flight { bytes: vec![1], since: 100, last: 132, sent: 100, waiter: () });
        assert!(queue.again(101, false).is_empty());
        assert_eq!(queue.again(97, false), [[1]]);
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (1u8..5).prop_map(Step::Submit),
            6 => (0u8..4).prop_map(Step::Block),
            1 => Just(Step::Restart),
            1 => (0u8..4).prop_map(Step::Drop),
            1 => Just(Step::Stranger),
        ]
    }

    proptest! {
        #[test]
        fn every_call_is_answered_and_the_answer_stays_true(steps in proptest::collection::vec(step(), 1..60)) {
            let mut world = World::new();
            for step in steps {
                world.step(step);
            }
            (0..2 * LIFE).for_each(|_| world.step(Step::Block(0)));
            (0..2 * LIFE).for_each(|_| world.step(Step::Block(u8::MAX)));
            for call in 0..world.calls {
                let answers = [&world.landed, &world.lost, &world.refused].map(|answered| usize::from(answered.contains(&call)));
                prop_assert_eq!(answers.iter().sum::<usize>(), 1, "call {} was answered {:?}", call, answers);
                prop_assert_eq!(world.on_chain(call), answers[0], "call {} was answered {:?}", call, answers);
            }
        }

        #[test]
        fn a_hole_in_the_nonces_is_filled_by_the_next_call(holes in 1u64..4, later in 1u64..4) {
            let mut queue = Queue::new();
            for nonce in holes..holes + later {
                queue.fly(nonce, Flight { bytes: vec![], since: 0, last: 9, sent: 0, waiter: () });
            }
            prop_assert_eq!(queue.nonce(0), 0);
            prop_assert_eq!(queue.nonce(holes), holes + later);
        }
    }
}
