//! The routing table: whom we know, many of those near to us and few of those far away.
//!
//! ```text
//! row 0    differ from us in the first bit       half of the DHT, 20 of it
//! row 1    share one bit with us                 a quarter, 20 of it
//! row 2    share two                             an eighth, 20 of it
//!  ...
//! ```
//!
//! So a table has about 20 · log₂(n / 20) nodes, and whomever we ask about a target knows nodes that are at least one
//! bit closer to it.

use super::id::Id;
use std::net::SocketAddrV4;
use std::time::Duration;

/// Nodes in a row, nodes in an answer, and nodes that keep a record.
pub const K: usize = 20;

/// A node that we know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// The hash of the address.
    pub id: Id,
    /// Where it is.
    pub address: SocketAddrV4,
    /// Since when we know it.
    pub added: Duration,
    /// When we last heard from it.
    pub seen: Duration,
    /// When we last asked it, or heard from it.
    pub asked: Duration,
    /// Whether somebody said that it's down since it last answered.
    pub doubted: bool,
}

impl Contact {
    /// A node that was heard of at `now`.
    pub fn new(address: SocketAddrV4, now: Duration) -> Self {
        Contact { id: Id::of_node(address), address, added: now, seen: now, asked: now, doubted: false }
    }

    /// Notes that it answered or asked.
    pub fn hear(&mut self, now: Duration) {
        (self.seen, self.asked, self.doubted) = (now, now, false);
    }
}

/// What became of a node that was to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Added {
    /// It is in the table.
    Yes,
    /// It was there before, or is us.
    Known,
    /// Its row is full; this one was asked the longest ago.
    Full {
        /// Candidate for replacement.
        oldest: Id,
    },
}

/// The nodes we know.
#[derive(Debug, Clone)]
pub struct Table {
    id: Id,
    rows: Vec<Vec<Contact>>,
    /// One past the last row that ever had a node: most of the others never have one.
    used: usize,
    len: usize,
}

impl Table {
    /// An empty table around `id`.
    pub fn new(id: Id) -> Self {
        Table { id, rows: vec![Vec::new(); 256], used: 0, len: 0 }
    }

    /// Whose table this is.
    pub fn id(&self) -> Id {
        self.id
    }

    /// How many nodes are known.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All nodes, far ones first.
    pub fn iter(&self) -> impl Iterator<Item = &Contact> {
        self.rows.iter().flatten()
    }

    /// The node with this id.
    pub fn get(&self, id: &Id) -> Option<&Contact> {
        self.row(id)?.iter().find(|contact| contact.id == *id)
    }

    /// The node with this id, to be changed.
    pub fn get_mut(&mut self, id: &Id) -> Option<&mut Contact> {
        let row = self.id.shared_bits(id);
        self.rows.get_mut(row)?.iter_mut().find(|contact| contact.id == *id)
    }

    /// Adds a node if there is room for it.
    pub fn add(&mut self, contact: Contact) -> Added {
        let place = self.place_for(&contact.id);
        if place == Added::Yes {
            let row = self.id.shared_bits(&contact.id);
            self.rows[row].push(contact);
            self.used = self.used.max(row + 1);
            self.len += 1;
        }
        place
    }

    /// What would become of a node with this id if it were added.
    pub fn place_for(&self, id: &Id) -> Added {
        match self.row(id) {
            None => Added::Known,
            Some(row) if row.iter().any(|known| known.id == *id) => Added::Known,
            Some(row) if row.len() < K => Added::Yes,
            Some(row) => {
                let oldest = row.iter().min_by_key(|known| (known.asked, known.added));
                Added::Full { oldest: oldest.expect("a full row isn't empty").id }
            }
        }
    }

    /// Makes everything look older, as if we had not heard from anybody since.
    pub fn age(&mut self, by: Duration) {
        for contact in self.rows.iter_mut().flatten() {
            contact.asked = contact.asked.saturating_sub(by);
            contact.seen = contact.seen.saturating_sub(by);
        }
    }

    /// Forgets a node and returns it.
    pub fn remove(&mut self, id: &Id) -> Option<Contact> {
        let row = self.rows.get_mut(self.id.shared_bits(id))?;
        let at = row.iter().position(|contact| contact.id == *id)?;
        self.len -= 1;
        Some(row.swap_remove(at))
    }

    /// The same nodes seen from another place; those for which there is no room there are forgotten.
    pub fn moved_to(&self, id: Id) -> Table {
        let mut table = Table::new(id);
        for contact in self.iter() {
            table.add(contact.clone());
        }
        table
    }

    /// The `count` nodes that are closest to `target`, closest first.
    pub fn closest(&self, target: &Id, count: usize) -> Vec<&Contact> {
        let home = self.id.shared_bits(target).min(self.rows.len() - 1);
        let mut closest: Vec<&Contact> = Vec::with_capacity(count + K);
        // Those that differ from us where the target does are closest; those with more bits in common with us are
        // all behind them, and then come the rows before, one after the other.
        push_sorted(&mut closest, &self.rows[home..=home], target);
        if closest.len() < count {
            push_sorted(&mut closest, &self.rows[home + 1..self.used.max(home + 1)], target);
        }
        for row in self.rows[..home].iter().rev() {
            if closest.len() >= count {
                break;
            }
            push_sorted(&mut closest, std::slice::from_ref(row), target);
        }
        closest.truncate(count);
        closest
    }

    fn row(&self, id: &Id) -> Option<&Vec<Contact>> {
        self.rows.get(self.id.shared_bits(id))
    }
}

/// Appends the nodes of some rows, the closest first.
fn push_sorted<'a>(closest: &mut Vec<&'a Contact>, rows: &'a [Vec<Contact>], target: &Id) {
    let start = closest.len();
    closest.extend(rows.iter().flatten());
    closest[start..].sort_unstable_by(|a, b| target.closer(&a.id, &b.id));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(n: u32) -> SocketAddrV4 {
        SocketAddrV4::new(n.into(), 1000)
    }

    fn table(nodes: impl IntoIterator<Item = u32>) -> Table {
        let mut table = Table::new(Id::of(b"us"));
        for n in nodes {
            table.add(Contact::new(address(n), Duration::from_secs(u64::from(n))));
        }
        table
    }

    proptest! {
        #[test]
        fn the_closest_are_found_closest_first(nodes in prop::collection::btree_set(any::<u32>(), 0..300), target: [u8; 32], count in 0..50usize) {
            let table = table(nodes);
            let target = Id(target);
            let mut all: Vec<_> = table.iter().map(|contact| contact.id).collect();
            prop_assert_eq!(all.len(), table.len());
            all.sort_by_key(|id| id.distance(&target));
            all.truncate(count);
            let closest: Vec<_> = table.closest(&target, count).into_iter().map(|contact| contact.id).collect();
            prop_assert_eq!(closest, all);
        }

        #[test]
        fn what_is_added_is_there_until_it_is_removed(nodes in prop::collection::btree_set(any::<u32>(), 0..100)) {
            let mut table = table(nodes);
            for id in table.iter().map(|contact| contact.id).collect::<Vec<_>>() {
                prop_assert_eq!(table.add(table.get(&id).unwrap().clone()), Added::Known);
                prop_assert_eq!(table.remove(&id).map(|contact| contact.id), Some(id));
                prop_assert_eq!(table.get(&id), None);
            }
            prop_assert!(table.is_empty());
        }
    }

    #[test]
    fn a_full_row_names_the_node_asked_longest_ago() {
        let mut far = (0..).filter(|n| Id::of_node(address(*n)).shared_bits(&Id::of(b"us")) == 0);
        let first = far.next().unwrap();
        let mut table = table(std::iter::once(first).chain(far.by_ref().take(K - 1)));
        let one_more = Contact::new(address(far.next().unwrap()), Duration::ZERO);
        assert_eq!(table.add(one_more.clone()), Added::Full { oldest: Id::of_node(address(first)) });
        table.get_mut(&Id::of_node(address(first))).unwrap().hear(Duration::MAX);
        assert_ne!(table.add(one_more), Added::Full { oldest: Id::of_node(address(first)) });
        assert_eq!(table.len(), K);
    }

    #[test]
    fn we_are_never_in_our_own_table() {
        let mut table = Table::new(Id::of_node(address(1)));
        assert_eq!(table.add(Contact::new(address(1), Duration::ZERO)), Added::Known);
    }
}
