//! How we stand at each topic, and which connections nobody needs any more. Pure.

use datdot_hypercore::PeerId;
use datdot_hyperswarm::{dht::Id, swarm::As};
use std::collections::{BTreeMap, BTreeSet};

/// Connections of ours that are kept though nobody looks for what they were made for: it may be wanted again soon, and
/// the other feed of a drive comes the same way.
const SPARE: usize = 16;

/// What is announced, and what is looked for and how often.
#[derive(Debug, Default)]
pub(super) struct Table {
    announced: BTreeSet<Id>,
    sought: BTreeMap<Id, usize>,
}

/// What to do about a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Join(Id, As),
    Leave(Id),
}

/// A connection of the swarm.
#[derive(Debug)]
pub(super) struct Link {
    /// Whether we called.
    pub ours: bool,
    /// Where we found the peer.
    pub topics: Vec<Id>,
}

impl Table {
    /// Lets these topics be announced, and no others any longer.
    pub fn announce(&mut self, topics: BTreeSet<Id>) -> Vec<Change> {
        let before = std::mem::replace(&mut self.announced, topics);
        before.symmetric_difference(&self.announced).map(|topic| self.stand(*topic)).collect()
    }

    /// One more looks for somebody at a topic.
    pub fn seek(&mut self, topic: Id) -> Vec<Change> {
        let seekers = self.sought.entry(topic).or_default();
        *seekers += 1;
        if *seekers == 1 { vec![self.stand(topic)] } else { vec![] }
    }

    /// Whoever looks there looks again.
    pub fn again(&mut self, topic: Id) -> Vec<Change> {
        if self.is_sought(&topic) { vec![self.stand(topic)] } else { vec![] }
    }

    /// One fewer looks for somebody.
    pub fn forsake(&mut self, topic: Id) -> Vec<Change> {
        let Some(seekers) = self.sought.get_mut(&topic) else { return vec![] };
        *seekers -= 1;
        if *seekers > 0 {
            return vec![];
        }
        self.sought.remove(&topic);
        vec![self.stand(topic)]
    }

    /// Whether anybody looks for somebody there.
    pub fn is_sought(&self, topic: &Id) -> bool {
        self.sought.contains_key(topic)
    }

    /// How many topics are announced.
    pub fn announced(&self) -> usize {
        self.announced.len()
    }

    fn stand(&self, topic: Id) -> Change {
        match (self.announced.contains(&topic), self.is_sought(&topic)) {
            (true, true) => Change::Join(topic, As::Both),
            (true, false) => Change::Join(topic, As::Server),
            (false, true) => Change::Join(topic, As::Client),
            (false, false) => Change::Leave(topic),
        }
    }
}

/// Of the connections, oldest first, those that we made for what nobody looks for any more, except the newest of them.
/// Those that others made are theirs to end.
pub(super) fn unneeded<'a>(links: impl Iterator<Item = (PeerId, &'a Link)>, table: &Table) -> Vec<PeerId> {
    let idle = links.filter(|(_, link)| link.ours && !link.topics.iter().any(|topic| table.is_sought(topic)));
    let mut idle: Vec<PeerId> = idle.map(|(id, _)| id).collect();
    idle.truncate(idle.len().saturating_sub(SPARE));
    idle
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Id = Id([1; 32]);
    const B: Id = Id([2; 32]);

    #[test]
    fn what_is_announced_and_looked_for_is_joined_as_both_and_each_change_is_told_once() {
        let mut table = Table::default();
        assert_eq!(table.announce([A].into()), [Change::Join(A, As::Server)]);
        assert_eq!(table.announce([A].into()), []);
        assert_eq!(table.seek(A), [Change::Join(A, As::Both)]);
        assert_eq!(table.seek(A), []);
        assert_eq!(table.again(A), [Change::Join(A, As::Both)]);
        assert_eq!(table.announce([B].into()), [Change::Join(A, As::Client), Change::Join(B, As::Server)]);
        assert_eq!(table.forsake(A), []);
        assert_eq!(table.forsake(A), [Change::Leave(A)]);
        assert_eq!((table.forsake(A), table.again(A)), (vec![], vec![]));
        assert_eq!(table.announced(), 1);
    }

    #[test]
    fn connections_for_what_nobody_looks_for_go_oldest_first_and_others_never() {
        let mut table = Table::default();
        table.seek(B);
        let link = |ours, topic| Link { ours, topics: vec![topic] };
        let mut links: Vec<(PeerId, Link)> = (0..20).map(|id| (id, link(true, A))).collect();
        links.extend((20..40).map(|id| (id, link(true, B))));
        links.extend((40..60).map(|id| (id, link(false, A))));
        let unneeded = |table: &Table| unneeded(links.iter().map(|(id, link)| (*id, link)), table);
        assert_eq!(unneeded(&table), [0, 1, 2, 3]);
        table.seek(A);
        assert_eq!(unneeded(&table), Vec::<PeerId>::new());
    }
}
