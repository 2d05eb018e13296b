//! What a node keeps for others: who announced what, routes to peers, and small records.
//!
//! Everything has an owner, the host that brought it, and an end. Each owner may have a share; when all is full, the
//! oldest goes. Hosts on the loopback interface are ourselves, and may have everything.

use super::id::Id;
use super::record::{Mutable, Peer, Peers, PublicKey};
use rand::Rng;
use rand::seq::IndexedRandom;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// How much is kept, and how long.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Announcements, and routes.
    pub announcements: usize,
    /// Mutable records, and immutable ones; each has at most the 2 KiB of a datagram.
    pub records: usize,
    /// One host may have one of so many parts of each.
    pub share: usize,
    /// Announcements of one host on one target: nobody can crowd out the others.
    pub per_target: usize,
    /// How long announcements and routes are kept.
    pub announced: Duration,
    /// How long records are kept.
    pub recorded: Duration,
}

impl Default for Limits {
    /// Counts and times as in JavaScript, which knows no shares.
    fn default() -> Self {
        Limits {
            announcements: 65_536,
            records: 32_768,
            share: 8,
            per_target: 64,
            announced: Duration::from_secs(20 * 60),
            recorded: Duration::from_secs(48 * 60 * 60),
        }
    }
}

/// All that a node keeps.
#[derive(Debug)]
pub struct Store {
    topics: HashMap<Id, Topic>,
    announced: Shelf<(Id, PublicKey), Vec<u8>>,
    per_target: HashMap<(Id, Ipv4Addr), usize>,
    max_per_target: usize,
    /// Peers that announced themselves at the hash of their key.
    pub(super) routes: Shelf<Id, Route>,
    mutable: Shelf<Id, Mutable>,
    immutable: Shelf<Id, Vec<u8>>,
}

#[derive(Debug, Default)]
struct Topic {
    peers: Vec<PublicKey>,
    bump: u64,
}

/// How a peer is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where it announced itself from.
    pub address: SocketAddrV4,
    /// Its encoded [`Peer`].
    pub record: Vec<u8>,
}

impl Store {
    /// An empty store.
    pub fn new(limits: &Limits) -> Self {
        Store {
            topics: HashMap::new(),
            announced: Shelf::new(limits.announcements, limits.share, limits.announced),
            per_target: HashMap::new(),
            max_per_target: limits.per_target,
            routes: Shelf::new(limits.announcements, limits.share, limits.announced),
            mutable: Shelf::new(limits.records, limits.share, limits.recorded),
            immutable: Shelf::new(limits.records, limits.share, limits.recorded),
        }
    }

    /// Forgets what has ended by `now`.
    pub fn expire(&mut self, now: Duration) {
        for ((target, key), host) in self.announced.expire(now) {
            self.unlist(target, key, host);
        }
        self.routes.expire(now);
        self.mutable.expire(now);
        self.immutable.expire(now);
    }

    /// Keeps the announcement of a peer at `target`, unless its host has too many.
    pub fn announce(&mut self, now: Duration, target: Id, peer: &Peer, host: Ipv4Addr, bump: u64) -> bool {
        let name = (target, peer.key);
        let is_new = self.announced.get(&name).is_none();
        let here = self.per_target.get(&(target, host)).copied().unwrap_or(0);
        if is_new && here >= self.max_per_target && !host.is_loopback() {
            return false;
        }
        // An announcement that comes from another host now counts there.
        let before = self.announced.owner(&name);
        let Ok(evicted) = self.announced.put(now, name, host, peer.encode()) else { return false };
        if let Some(((target, key), host)) = evicted {
            self.unlist(target, key, host);
        }
        if let Some(before) = before {
            self.uncount(target, before);
        }
        *self.per_target.entry((target, host)).or_default() += 1;
        let topic = self.topics.entry(target).or_default();
        topic.bump = topic.bump.max(bump);
        if is_new {
            topic.peers.push(peer.key);
        }
        true
    }

    /// Forgets an announcement.
    pub fn unannounce(&mut self, target: Id, key: &PublicKey) {
        if let Some(host) = self.announced.remove(&(target, *key)) {
            self.unlist(target, *key, host);
        }
    }

    /// The encoded [`Peers`] at `target`: at most `max` of them by chance, and the route if there's room. None without any.
    pub fn lookup(&self, rng: &mut impl Rng, target: &Id, max: usize, route: Option<&[u8]>) -> Option<Vec<u8>> {
        let topic = self.topics.get(target);
        let peers = topic.map_or(&[][..], |topic| &topic.peers);
        let mut records: Vec<&[u8]> = peers
            .choose_multiple(rng, max)
            .filter_map(|key| self.announced.get(&(*target, *key)))
            .map(Vec::as_slice)
            .collect();
        records.extend(route.filter(|_| records.len() < max));
        let bump = topic.map_or(0, |topic| topic.bump);
        (!records.is_empty()).then(|| Peers::encode(records.into_iter(), bump))
    }

    /// The mutable record at `target`.
    pub fn mutable(&self, target: &Id) -> Option<&Mutable> {
        self.mutable.get(target)
    }

    /// Keeps a record that was checked.
    pub fn put_mutable(&mut self, now: Duration, target: Id, host: Ipv4Addr, record: Mutable) -> bool {
        self.mutable.put(now, target, host, record).is_ok()
    }

    /// The immutable record at `target`.
    pub fn immutable(&self, target: &Id) -> Option<&[u8]> {
        self.immutable.get(target).map(Vec::as_slice)
    }

    /// Keeps a record whose hash was checked.
    pub fn put_immutable(&mut self, now: Duration, target: Id, host: Ipv4Addr, value: &[u8]) -> bool {
        self.immutable.put(now, target, host, value.to_vec()).is_ok()
    }

    /// Announcements, routes, mutable and immutable records.
    pub fn counts(&self) -> [usize; 4] {
        [self.announced.len(), self.routes.len(), self.mutable.len(), self.immutable.len()]
    }

    fn unlist(&mut self, target: Id, key: PublicKey, host: Ipv4Addr) {
        self.uncount(target, host);
        if let Some(topic) = self.topics.get_mut(&target) {
            if let Some(at) = topic.peers.iter().position(|other| *other == key) {
                topic.peers.swap_remove(at);
            }
            if topic.peers.is_empty() {
                self.topics.remove(&target);
            }
        }
    }

    fn uncount(&mut self, target: Id, host: Ipv4Addr) {
        decrement(&mut self.per_target, (target, host));
    }
}

/// Things with an owner and an end, the oldest first.
#[derive(Debug)]
pub(super) struct Shelf<K, V> {
    things: HashMap<K, Thing<V>>,
    order: BTreeMap<u64, K>,
    owned: HashMap<Ipv4Addr, usize>,
    next: u64,
    max: usize,
    max_owned: usize,
    lifetime: Duration,
}

#[derive(Debug)]
struct Thing<V> {
    value: V,
    owner: Ipv4Addr,
    place: u64,
    until: Duration,
}

/// The owner has its share already.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ShareIsFull;

impl<K: Copy + Eq + Hash, V> Shelf<K, V> {
    fn new(max: usize, share: usize, lifetime: Duration) -> Self {
        Shelf {
            things: HashMap::new(),
            order: BTreeMap::new(),
            owned: HashMap::new(),
            next: 0,
            max,
            max_owned: max.div_ceil(share),
            lifetime,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.things.len()
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.things.get(key).map(|thing| &thing.value)
    }

    fn owner(&self, key: &K) -> Option<Ipv4Addr> {
        self.things.get(key).map(|thing| thing.owner)
    }

    /// Puts something in front, in the place of what had this key; returns what fell off the end.
    pub(super) fn put(
        &mut self,
        now: Duration,
        key: K,
        owner: Ipv4Addr,
        value: V,
    ) -> Result<Option<(K, Ipv4Addr)>, ShareIsFull> {
        let is_theirs = self.owner(&key) == Some(owner);
        let owned = self.owned.get(&owner).copied().unwrap_or(0);
        if !is_theirs && owned >= self.max_owned && !owner.is_loopback() {
            return Err(ShareIsFull);
        }
        self.remove(&key);
        let fallen = if self.things.len() >= self.max {
            let oldest = self.order.first_key_value().map(|(_, key)| *key);
            oldest.and_then(|key| Some((key, self.remove(&key)?)))
        } else {
            None
        };
        self.things.insert(key, Thing { value, owner, place: self.next, until: now + self.lifetime });
        self.order.insert(self.next, key);
        self.next += 1;
        *self.owned.entry(owner).or_default() += 1;
        Ok(fallen)
    }

    /// Removes something and returns its owner.
    pub(super) fn remove(&mut self, key: &K) -> Option<Ipv4Addr> {
        let thing = self.things.remove(key)?;
        self.order.remove(&thing.place);
        decrement(&mut self.owned, thing.owner);
        Some(thing.owner)
    }

    fn expire(&mut self, now: Duration) -> Vec<(K, Ipv4Addr)> {
        let mut gone = Vec::new();
        // All live equally long, so the oldest ends first.
        while let Some(key) = self.order.first_key_value().map(|(_, key)| *key)
            && self.things.get(&key).is_none_or(|thing| thing.until <= now)
        {
            let Some(owner) = self.remove(&key) else { break };
            gone.push((key, owner));
        }
        gone
    }
}

fn decrement<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: K) {
    use std::collections::hash_map::Entry;
    if let Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use std::collections::HashSet;

    fn host(n: u8) -> Ipv4Addr {
        Ipv4Addr::new(5, 5, 5, n)
    }

    fn peer(n: u8) -> Peer {
        Peer { key: [n; 32], relays: vec![SocketAddrV4::new(host(n), 1)] }
    }

    fn small() -> Store {
        let limits = Limits { announcements: 16, records: 16, share: 2, per_target: 3, ..Limits::default() };
        Store::new(&limits)
    }

    fn found(store: &Store, target: Id) -> HashSet<u8> {
        let mut rng = StdRng::seed_from_u64(1);
        let value = store.lookup(&mut rng, &target, 20, None);
        value.map_or(HashSet::new(), |value| {
            Peers::decode(&value).unwrap().peers.into_iter().map(|peer| peer.key[0]).collect()
        })
    }

    #[test]
    fn an_announcement_lives_twenty_minutes_from_its_last_refresh() {
        let (mut store, target, minute) = (small(), Id([1; 32]), Duration::from_secs(60));
        assert!(store.announce(Duration::ZERO, target, &peer(1), host(1), 0));
        assert!(store.announce(10 * minute, target, &peer(2), host(2), 0));
        assert!(store.announce(15 * minute, target, &peer(1), host(1), 0));
        store.expire(29 * minute);
        assert_eq!(found(&store, target), [1, 2].into());
        store.expire(30 * minute);
        assert_eq!(found(&store, target), [1].into());
        store.expire(35 * minute);
        assert_eq!(found(&store, target), [].into());
        assert_eq!((store.topics.len(), store.per_target.len(), store.announced.owned.len()), (0, 0, 0));
    }

    #[test]
    fn one_host_crowds_out_nobody() {
        let (mut store, target) = (small(), Id([1; 32]));
        let kept = (0..10).filter(|n| store.announce(Duration::ZERO, target, &peer(*n), host(1), 0)).count();
        assert_eq!(kept, 3, "on one target");
        let elsewhere = (0..10).filter(|n| store.announce(Duration::ZERO, Id([*n + 9; 32]), &peer(1), host(1), 0));
        assert_eq!(kept + elsewhere.count(), 8, "half of the store");
        assert!(store.announce(Duration::ZERO, target, &peer(50), host(2), 0));
        assert!(found(&store, target).contains(&50));
        // What it has may be refreshed.
        assert!(store.announce(Duration::ZERO, target, &peer(0), host(1), 0));
    }

    #[test]
    fn at_most_twenty_by_chance_and_the_route_if_there_is_room() {
        let mut store = Store::new(&Limits::default());
        let target = Id([1; 32]);
        for n in 0..100 {
            store.announce(Duration::ZERO, target, &peer(n), host(n), u64::from(n));
        }
        let mut rng = StdRng::seed_from_u64(1);
        let mut all = HashSet::new();
        for _ in 0..100 {
            let peers =
                Peers::decode(&store.lookup(&mut rng, &target, 20, Some(&peer(200).encode())).unwrap()).unwrap();
            assert_eq!((peers.peers.len(), peers.bump), (20, 99));
            all.extend(peers.peers.into_iter().map(|peer| peer.key));
        }
        assert_eq!(all.len(), 100);
        let route = store.lookup(&mut rng, &Id([2; 32]), 20, Some(&peer(200).encode())).unwrap();
        assert_eq!(Peers::decode(&route).unwrap().peers, [peer(200)]);
    }

    proptest! {
        #[test]
        fn the_books_of_a_store_always_agree(steps in prop::collection::vec((0..4u8, 0..4u8, 0..12u8, 0..6u8), 0..200)) {
            let mut store = small();
            let mut now = Duration::ZERO;
            for (step, target, key, from) in steps {
                let target = Id([target; 32]);
                match step {
                    0 | 1 => _ = store.announce(now, target, &peer(key), host(from), 0),
                    2 => store.unannounce(target, &[key; 32]),
                    _ => {
                        now += Duration::from_secs(300);
                        store.expire(now);
                    }
                }
                let listed: usize = store.topics.values().map(|topic| topic.peers.len()).sum();
                prop_assert!(listed <= 16);
                prop_assert_eq!(listed, store.announced.len());
                prop_assert_eq!(listed, store.announced.order.len());
                prop_assert_eq!(listed, store.announced.owned.values().sum::<usize>());
                prop_assert_eq!(listed, store.per_target.values().sum::<usize>());
                prop_assert!(store.topics.values().all(|topic| !topic.peers.is_empty()));
            }
        }
    }
}
