//! Which feeds are open on the connection: offered, asked for, rejected and closed.

use super::{Channel, Closed, Fault, Load, PROTOCOL, Peer, REOPEN, REOPEN_AT_MOST, history::History};
use crate::{
    feed::Feed,
    key::{DiscoveryKey, FeedKey},
    messages::Handshake,
    offers::Offers,
    pace::Pace,
    plans::Stopped,
    session::Session,
};
use datdot_wire::mux::{ChannelError, ChannelId, RequestId};
use std::collections::BTreeSet;

/// Feeds that the remote may have open on a connection, and as many more that we may.
const MAX_FEEDS: usize = if cfg!(test) { 8 } else { 4096 };
/// Feeds that a remote asked for in vain, and is told of should they come.
const MAX_MISSED: usize = 256;

impl Peer {
    fn handshake(&self, feed: &Feed, initiator: bool) -> Handshake {
        Handshake { seeks: true, capability: feed.key().capability(initiator, &self.setup.handshake) }
    }

    pub(super) fn open_wanted(&mut self, key: &FeedKey, discovery: DiscoveryKey) {
        if self.open.contains_key(&discovery) {
            return;
        }
        if self.closed.get(&discovery).is_some_and(|closed| !closed.over) {
            return self.setup.plans.hear(key, self.setup.id, true);
        }
        match self.setup.store.shown(&discovery) {
            // With too many channels it stays closed: the remote has the others to get done first.
            Some(feed) => _ = self.open(feed, false),
            None => self.setup.plans.stop(key, Stopped::Replaced),
        }
    }

    /// Opens feeds that the remote asked for before they were here.
    pub(super) fn open_missed(&mut self) {
        for (discovery, capability) in std::mem::take(&mut self.missed) {
            match self.setup.store.shown(&discovery) {
                None => _ = self.missed.insert(discovery, capability),
                Some(feed) if self.open.contains_key(&discovery) || !self.is_known(&feed, &capability) => {}
                Some(feed) => _ = self.open(feed, true),
            }
        }
    }

    /// Whether this is what shows that the remote knows a feed's key.
    fn is_known(&self, feed: &Feed, capability: &[u8; 32]) -> bool {
        self.handshake(feed, !self.setup.initiator).capability == *capability
    }

    /// Whether the remote, or else we, may have one more feed open. What one asks for is not at the other's expense.
    pub(super) fn has_room(&self, theirs: bool) -> bool {
        (if theirs { self.theirs } else { self.channels.len() - self.theirs }) < MAX_FEEDS
    }

    fn open(&mut self, feed: Feed, theirs: bool) -> Result<(), ChannelError> {
        if !self.has_room(theirs) {
            self.crowded |= !theirs;
            return Err(ChannelError::TooManyChannels);
        }
        let discovery = feed.discovery();
        let handshake = self.handshake(&feed, self.setup.initiator);
        let id = self.mux.open(PROTOCOL, &discovery.0, &handshake.encode())?;
        self.open.insert(discovery, id);
        let (pace, hopes, history) = (Pace::default(), BTreeSet::new(), History::Ours);
        let moves = self.excused.remove(&discovery).unwrap_or_default();
        let (session, since, wanted) = (None, self.now, None);
        self.theirs += usize::from(theirs);
        self.channels.insert(
            id,
            Channel { feed, theirs, load: Load::default(), session, pace, hopes, history, moves, since, wanted },
        );
        Ok(())
    }

    pub(super) fn requested(&mut self, request: RequestId, protocol: &str, id: &[u8], handshake: &[u8]) {
        let discovery = id.try_into().map(DiscoveryKey).ok().filter(|_| protocol == PROTOCOL);
        let theirs = Handshake::decode(handshake).ok().map(|theirs| theirs.capability);
        // Who does not know the key learns nothing but that: not even that the feed is here, or when it comes.
        if let (Some(discovery), Some(capability)) = (discovery, theirs)
            && !self.open.contains_key(&discovery)
        {
            match self.setup.store.shown(&discovery) {
                Some(feed) if self.is_known(&feed, &capability) => {
                    self.closed.remove(&discovery);
                    if self.open(feed, true).is_ok() {
                        return;
                    }
                }
                None if self.missed.len() < MAX_MISSED => _ = self.missed.insert(discovery, capability),
                _ => {}
            }
        }
        self.mux.reject(request);
    }

    pub(super) fn opened(&mut self, id: ChannelId, handshake: &[u8]) -> Result<(), Fault> {
        let Some(channel) = self.channels.get(&id) else { return Ok(()) };
        let feed = channel.feed.clone();
        if Handshake::decode(handshake)?.capability != self.handshake(&feed, !self.setup.initiator).capability {
            return Err(Fault::Capability { feed: feed.key() });
        }
        let local = self.local(id, 0);
        let (session, first) = Session::new(local.unwrap_or_default(), Offers::new(self.room.clone()));
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.session = Some(session);
        }
        first.iter().for_each(|message| self.say(id, message));
        Ok(())
    }

    /// The remote closed a channel: it needs nothing of the feed any more. If we do, it is opened anew.
    pub(super) fn closed(&mut self, id: ChannelId) {
        let Some(Channel { feed, since, .. }) = self.forget(id) else { return };
        if self.now.duration_since(since) < REOPEN {
            return self.shut(&feed);
        }
        self.closed.remove(&feed.discovery());
        if self.setup.plans.is_wanted(&feed.key()) {
            _ = self.open(feed, false);
        }
    }

    /// The remote does not want to have the feed open: there is nothing to hear of it for a while.
    pub(super) fn shut(&mut self, feed: &Feed) {
        let before = self.closed.get(&feed.discovery()).map(|closed| closed.wait);
        let wait = before.map_or(REOPEN, |before| (2 * before).min(REOPEN_AT_MOST));
        self.closed.insert(feed.discovery(), Closed { since: self.now, wait, over: false });
        self.setup.plans.hear(&feed.key(), self.setup.id, true);
    }

    pub(super) fn forget(&mut self, id: ChannelId) -> Option<Channel> {
        let channel = self.channels.remove(&id)?;
        self.theirs -= usize::from(channel.theirs);
        self.load.waiting -= channel.load.waiting;
        self.load.wants -= channel.load.wants;
        self.asking.remove(&id);
        self.setup.plans.with(&channel.feed.key(), |plan| plan.gone(self.setup.id));
        self.open.remove(&channel.feed.discovery());
        if let Some(moves) = channel.moves.carried() {
            self.excused.insert(channel.feed.discovery(), moves);
        }
        Some(channel)
    }

    /// Closes a channel whose feed was removed or hidden. The feed may have been made anew, or shown, and opened since.
    pub(super) fn close_gone(&mut self, id: ChannelId) {
        let Some(Channel { feed, .. }) = self.channels.get(&id) else { return };
        if feed.is_removed() || self.setup.store.shown(&feed.discovery()).is_none() {
            self.close(id);
        }
    }

    pub(super) fn close(&mut self, id: ChannelId) {
        self.mux.close(id);
        self.forget(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{key::Keypair, peer::Setup, plan::Want, store::Store};
    use bytes::Bytes;
    use datdot_wire::mux::{Event, Mux};
    use std::time::{Duration, Instant};

    /// A peer with a store, and its remote.
    struct World {
        _dir: tempfile::TempDir,
        peer: Peer,
        remote: Mux,
        now: Instant,
        /// Feeds that the peer offered the remote, and those that both have open.
        offered: Vec<DiscoveryKey>,
        opened: usize,
    }

    fn key(name: u8) -> FeedKey {
        let pair = Keypair::from_seed([name; 32]);
        pair.feed_key(&pair.manifest())
    }

    impl World {
        fn new() -> World {
            let (dir, now) = (tempfile::tempdir().expect("a folder"), Instant::now());
            let store = Store::open(dir.path()).expect("the folder is free");
            let (plans, memory) = Default::default();
            let setup = Setup { id: 1, initiator: true, handshake: [5; 64], store, plans, window: 8, memory };
            let peer = Peer::new(now, setup);
            World { _dir: dir, peer, remote: Mux::new(), now, offered: Vec::new(), opened: 0 }
        }

        fn want(&self, name: u8) {
            self.peer.setup.store.open_remote(key(name), None).expect("room");
            self.peer.setup.plans.want(key(name), Want::all(), name.into(), false);
        }

        fn have(&self, name: u8) {
            self.peer.setup.store.create(&Keypair::from_seed([name; 32])).expect("room");
        }

        /// The remote asks for a feed, of which it knows the key or only the name in public.
        fn ask(&mut self, name: u8, knows: bool) {
            let (key, hash) = (key(name), &self.peer.setup.handshake);
            let capability = if knows { key.capability(false, hash) } else { [7; 32] };
            let handshake = Handshake { seeks: true, capability }.encode();
            self.remote.open(PROTOCOL, &key.discovery().0, &handshake).expect("room");
            self.pass(Duration::ZERO);
        }

        /// Time passes. The remote rejects what it is offered and did not ask for.
        fn pass(&mut self, time: Duration) {
            let end = self.now + time;
            loop {
                self.peer.tick(self.now);
                let frames = std::iter::from_fn(|| self.remote.take_output()).map(Bytes::from).collect();
                self.peer.receive(self.now, frames).expect("it is honest");
                self.peer.take_output().into_iter().for_each(|frame| self.remote.receive(frame.into()));
                while let Some(event) = self.remote.next().expect("we are honest") {
                    match event {
                        Event::OpenRequested { request, id, .. } => {
                            self.offered.push(DiscoveryKey((&id[..]).try_into().expect("32 bytes")));
                            self.remote.reject(request);
                        }
                        Event::Opened { .. } => self.opened += 1,
                        _ => {}
                    }
                }
                if self.now >= end {
                    return;
                }
                self.now += Duration::from_millis(500);
            }
        }
    }

    #[test]
    fn what_is_rejected_again_and_again_is_offered_less_and_less() {
        let mut world = World::new();
        world.want(1);
        world.pass(Duration::from_secs(3600));
        assert!((10..25).contains(&world.offered.len()), "{} times", world.offered.len());
        // The remote has it now, and drops it again.
        world.ask(1, true);
        assert_eq!(world.opened, 1);
    }

    #[test]
    fn what_we_want_takes_no_channels_from_the_remote() {
        let mut world = World::new();
        (1..=20).for_each(|name| world.want(name));
        (50..70).for_each(|name| world.have(name));
        world.peer.tick(world.now);
        assert_eq!(world.peer.channels.len(), MAX_FEEDS);
        (50..70).for_each(|name| world.ask(name, true));
        assert_eq!((world.opened, world.peer.theirs), (MAX_FEEDS, MAX_FEEDS));
        // Those that are rejected make room for the others.
        world.pass(Duration::from_secs(2));
        assert_eq!(world.offered.iter().collect::<BTreeSet<_>>().len(), 20);
    }

    #[test]
    fn only_who_knows_its_key_is_told_of_a_feed_that_comes() {
        let mut world = World::new();
        world.ask(1, false);
        world.ask(2, true);
        world.pass(Duration::from_secs(2));
        assert_eq!((world.opened, world.offered.len()), (0, 0));
        (1..=2).for_each(|name| world.have(name));
        world.pass(Duration::from_secs(2));
        assert_eq!(world.offered, [key(2).discovery()]);
    }
}
