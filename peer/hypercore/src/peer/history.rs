//! Remotes whose history is not simply ours: a later fork, or another history under the same number.

use super::{Channel, Fault, Peer};
use crate::{
    feed::{Feed, FeedError, Fork, Judged, Refused},
    messages::{Data, Message},
    plans::Stopped,
    session::{Asked, Question, REFUSED, Session},
};
use datdot_wire::mux::ChannelId;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// A remote that is in doubt for so long is dropped.
const MAX_DOUBT: Duration = Duration::from_secs(30);

/// What becomes of the remote's history, where it is not simply ours.
#[derive(Default)]
pub(super) enum History {
    /// Nothing is in doubt.
    #[default]
    Ours,
    /// Its head, of this fork and length, was asked for as a whole. With the reason for doubt, and since when there is one: if
    /// the heads don't contradict each other, the remote lied.
    Asked((u64, u64), Option<(Refused, Instant)>),
    /// It is a later fork, and what it shares with us is looked for.
    Fork(Box<Fork>),
    /// It is a later fork, and not followed.
    Known(Box<Fork>),
    /// It could not be shown, for this fork and length; and when that was.
    GivenUp((u64, u64), Instant),
}

impl History {
    /// What was asked for does not come; returns what that was. If the remote has moved on since, its newest head is another
    /// question.
    fn give_up(&mut self, now: Instant) -> History {
        let head = match self {
            History::Ours => return History::Ours,
            History::Asked(head, _) | History::GivenUp(head, _) => *head,
            History::Fork(fork) | History::Known(fork) => (fork.number(), fork.length()),
        };
        std::mem::replace(self, History::GivenUp(head, now))
    }

    /// Whether something about it is still to be asked, or to be answered.
    pub(super) fn is_open(&self, now: Instant, feed: &Feed, session: &Session) -> bool {
        match self {
            History::Asked(..) | History::Fork(_) => true,
            History::Known(_) if feed.follows_forks() => true,
            _ => self.unasked(now, feed, session).is_some(),
        }
    }

    /// Whether the remote is asked for nothing but its history: what it said contradicts ours.
    pub(super) fn is_doubted(&self, feed: &Feed) -> bool {
        match self {
            History::Ours | History::Fork(_) | History::Known(_) => false,
            History::Asked(_, doubt) => doubt.is_some(),
            History::GivenUp((fork, _), _) => feed.conflict().is_some_and(|conflict| conflict.fork == *fork),
        }
    }

    /// Asks for the remote's head if it is of a later fork, to follow that or to know that there is one.
    pub(super) fn ask(&mut self, now: Instant, feed: &Feed, session: &mut Session) -> Option<Message> {
        let head = self.unasked(now, feed, session)?;
        let question = session.ask_whole()?;
        *self = History::Asked(head, None);
        Some(question)
    }

    /// Fork and length of a later fork of the remote's that is to be asked for.
    fn unasked(&self, now: Instant, feed: &Feed, session: &Session) -> Option<(u64, u64)> {
        let info = feed.info();
        let remote = session.remote().filter(|sync| sync.uploading && sync.fork > info.fork && sync.length > 0)?;
        let head = (remote.fork, remote.length);
        let ask = match self {
            History::Ours => true,
            History::GivenUp(before, at) => *before != head || now.duration_since(*at) > REFUSED,
            History::Known(fork) => (fork.number(), fork.length()) != head,
            History::Asked(..) | History::Fork(_) => false,
        };
        let is_news = feed.follows_forks() || info.later_fork.is_none_or(|later| later < remote.fork);
        (ask && info.length > 0 && is_news).then_some(head)
    }
}

impl Peer {
    /// A head or block of our fork is not true: either the remote lies, or the author told it another history.
    pub(super) fn doubt(&mut self, id: ChannelId, refused: Refused) -> Result<(), Fault> {
        let Some(Channel { session: Some(session), history, feed, .. }) = self.channels.get_mut(&id) else {
            return Ok(());
        };
        let head = session.remote().map_or((0, 0), |sync| (sync.fork, sync.length));
        let known = history.is_doubted(feed);
        match history {
            History::Asked(_, doubt) => _ = doubt.get_or_insert((refused, self.now)),
            History::GivenUp(..) if known => {}
            History::Fork(_) | History::GivenUp(..) => return Err(Fault::False { feed: feed.key(), refused }),
            History::Ours | History::Known(_) => match session.ask_whole() {
                None => return Err(Fault::False { feed: feed.key(), refused }),
                Some(question) => {
                    *history = History::Asked(head, Some((refused, self.now)));
                    self.say(id, &question);
                }
            },
        }
        Ok(())
    }

    /// Whether a remote did not show in time that what it said is the authors' doing.
    pub(super) fn check_doubts(&mut self) -> Result<(), Fault> {
        for Channel { feed, history, .. } in self.channels.values_mut() {
            let overdue = |since: Instant| self.now.duration_since(since) > MAX_DOUBT;
            if let History::Asked(_, doubt) = history
                && let Some((refused, _)) = doubt.take_if(|(_, since)| overdue(*since))
            {
                return Err(Fault::False { feed: feed.key(), refused });
            }
        }
        Ok(())
    }

    /// Takes an answer about the remote's history.
    pub(super) fn look_into(
        &mut self,
        id: ChannelId,
        feed: &Feed,
        data: &Data,
        question: Question,
    ) -> Result<(), Fault> {
        let key = feed.key();
        let Some(Channel { history, moves, .. }) = self.channels.get_mut(&id) else { return Ok(()) };
        let result = match (question.asked, history.give_up(self.now)) {
            _ if data.fork != question.fork => Err(Refused::NotAsked),
            (Asked::Whole, History::Asked(_, why)) => match (feed.judge(data), why) {
                (Ok(Judged::Fork(fork)), _) => Ok(Some(fork)),
                (Ok(Judged::Conflict), _) => {
                    tracing::error!(target: "hypercore", feed = %key, "the authors signed two histories");
                    Ok(None)
                }
                (Ok(Judged::Same), None) => Ok(None),
                (Ok(Judged::Same), Some((refused, _))) | (Err(refused), _) => Err(refused),
            },
            (Asked::Hash(index), History::Fork(mut fork))
                if data.hash.as_ref().is_some_and(|hash| hash.index == index) =>
            {
                fork.learn(data).map(|()| Some(fork))
            }
            _ => Err(Refused::NotAsked),
        };
        if result.is_ok() {
            moves.proven(data.fork);
        }
        let fork = match result {
            Ok(Some(fork)) if feed.follows_forks() => fork,
            Ok(Some(fork)) => {
                feed.note_fork(fork.number());
                *history = History::Known(fork);
                return Ok(());
            }
            Ok(None) => return Ok(()),
            Err(refused) if refused.is_peers_fault() && !moves.excuse(question.id) => {
                return Err(Fault::False { feed: key, refused });
            }
            Err(refused) => {
                tracing::debug!(target: "hypercore", feed = %key, %refused, "history not followed");
                return Ok(());
            }
        };
        self.follow(id, feed, fork);
        Ok(())
    }

    /// Goes on with a fork that was not followed, if it is now.
    pub(super) fn follow_known(&mut self, id: ChannelId) {
        let Some(Channel { feed, history, .. }) = self.channels.get_mut(&id) else { return };
        if feed.follows_forks()
            && let History::Known(_) = history
            && let History::Known(fork) = std::mem::take(history)
        {
            let feed = feed.clone();
            self.follow(id, &feed, fork);
        }
    }

    fn follow(&mut self, id: ChannelId, feed: &Feed, fork: Box<Fork>) {
        if let Err(error) = self.take_over(id, feed, fork) {
            tracing::warn!(target: "hypercore", feed = %feed.key(), %error, "a fork can't be followed");
            self.setup.plans.stop(&feed.key(), Stopped::Feed(Arc::new(error)));
        }
    }

    /// Asks for more of a fork, or takes it over.
    fn take_over(&mut self, id: ChannelId, feed: &Feed, mut fork: Box<Fork>) -> Result<(), FeedError> {
        let Some(Channel { session: Some(session), history, .. }) = self.channels.get_mut(&id) else { return Ok(()) };
        match feed.next_question(&mut fork, |blocks| session.guess_cut(blocks))? {
            Some((index, nodes)) => {
                let message = session.ask_hash(fork.number(), index, nodes);
                *history = History::Fork(fork);
                self.say(id, &message);
            }
            None => {
                *history = History::Ours;
                feed.adopt_fork(*fork)?;
                self.tell(id);
            }
        }
        Ok(())
    }

    /// The remote shows a head that we did not ask for: it says that the authors signed two histories. If not, it was nothing.
    pub(super) fn shown(&mut self, id: ChannelId, data: &Data) {
        let Some(Channel { feed, .. }) = self.channels.get(&id) else { return };
        if data.fork == feed.info().fork && feed.conflict().is_none() {
            match feed.judge(data) {
                Ok(Judged::Conflict) => {
                    tracing::error!(target: "hypercore", feed = %feed.key(), "the authors signed two histories")
                }
                Ok(_) => {}
                Err(refused) => tracing::debug!(target: "hypercore", feed = %feed.key(), %refused, "no conflict"),
            }
        }
    }

    /// The remote does not show its history.
    pub(super) fn give_up(&mut self, id: ChannelId) {
        if let Some(Channel { history, .. }) = self.channels.get_mut(&id) {
            history.give_up(self.now);
        }
    }
}
