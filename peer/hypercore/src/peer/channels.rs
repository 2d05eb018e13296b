//! Which feeds are open on the connection: offered, asked for, rejected and closed.

use super::{Channel, Fault, PROTOCOL, Peer, REOPEN, history::History};
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

/// Feeds that one connection may have open.
const MAX_FEEDS: usize = 4096;
/// Feeds that a remote asked for in vain, and is told of should they come.
const MAX_MISSED: usize = 256;

impl Peer {
    fn handshake(&self, feed: &Feed, initiator: bool) -> Handshake {
        Handshake { seeks: true, capability: feed.key().capability(initiator, &self.setup.handshake) }
    }

    pub(super) fn open_wanted(&mut self, key: &FeedKey, discovery: DiscoveryKey) {
        if self.closed.contains_key(&discovery) {
            self.setup.plans.hear(key, self.setup.id, true);
        }
        if self.open.contains_key(&discovery) || self.closed.contains_key(&discovery) {
            return;
        }
        match self.setup.store.shown(&discovery) {
            // With too many channels it stays closed: the remote has the others to get done first.
            Some(feed) => _ = self.open(feed),
            None => self.setup.plans.stop(key, Stopped::Replaced),
        }
    }

    pub(super) fn open(&mut self, feed: Feed) -> Result<(), ChannelError> {
        let discovery = feed.discovery();
        let handshake = self.handshake(&feed, self.setup.initiator);
        let id = self.mux.open(PROTOCOL, &discovery.0, &handshake.encode())?;
        self.open.insert(discovery, id);
        let (pace, hopes, history) = (Pace::default(), BTreeSet::new(), History::Ours);
        let moves = self.excused.remove(&discovery).unwrap_or_default();
        let (session, since, wanted) = (None, self.now, None);
        self.channels.insert(id, Channel { feed, session, pace, hopes, history, moves, since, wanted });
        Ok(())
    }

    pub(super) fn requested(&mut self, request: RequestId, protocol: &str, id: &[u8], handshake: &[u8]) {
        let discovery = id.try_into().map(DiscoveryKey).ok().filter(|_| protocol == PROTOCOL);
        let free = |discovery: &DiscoveryKey| !self.open.contains_key(discovery) && self.channels.len() < MAX_FEEDS;
        let feed = discovery.filter(free).and_then(|discovery| self.setup.store.shown(&discovery));
        if let (None, Some(discovery)) = (&feed, discovery)
            && self.missed.len() < MAX_MISSED
        {
            self.missed.insert(discovery);
        }
        // Who does not know the key learns nothing but that: not even that the feed is here.
        let theirs = Handshake::decode(handshake).ok();
        let expected = |feed: &Feed| self.handshake(feed, !self.setup.initiator).capability;
        let feed = feed.filter(|feed| theirs.is_some_and(|theirs| theirs.capability == expected(feed)));
        if feed.is_none_or(|feed| self.open(feed).is_err()) {
            self.mux.reject(request);
        }
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
            self.shut(&feed);
        } else if self.setup.plans.is_wanted(&feed.key()) {
            _ = self.open(feed);
        }
    }

    /// The remote does not want to have the feed open: there is nothing to hear of it for a while.
    pub(super) fn shut(&mut self, feed: &Feed) {
        self.closed.insert(feed.discovery(), self.now);
        self.setup.plans.hear(&feed.key(), self.setup.id, true);
    }

    pub(super) fn forget(&mut self, id: ChannelId) -> Option<Channel> {
        let channel = self.channels.remove(&id)?;
        self.setup.plans.with(&channel.feed.key(), |plan| plan.gone(self.setup.id));
        self.open.remove(&channel.feed.discovery());
        if let Some(moves) = channel.moves.carried() {
            self.excused.insert(channel.feed.discovery(), moves);
        }
        Some(channel)
    }

    pub(super) fn close(&mut self, id: ChannelId) {
        self.mux.close(id);
        self.forget(id);
    }
}
