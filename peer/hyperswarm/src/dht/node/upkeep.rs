//! What a node does by itself as time passes: it asks old contacts whether they're there, looks for new ones, finds out
//! whether it can be a host, and notices that it slept.

use super::{Added, Event, Node, Purpose, Question, Role, TRIES, journey::Kind, reach::Aim};
use crate::dht::id::Id;
use crate::dht::packet::Command;
use crate::dht::query::Search;
use crate::dht::table::Contact;
use rand::Rng;
use rand::seq::IteratorRandom;
use std::net::Ipv4Addr;
use std::time::Duration;

const PERIOD: Duration = Duration::from_secs(5);
/// A period that took that long was a sleep.
const SLEPT: Duration = Duration::from_secs(20);
/// How often some of the oldest contacts are asked.
const CHECK_EVERY: Duration = Duration::from_secs(40);
/// Without a search for so long, there is one to learn about new nodes.
const REFRESH_AFTER: Duration = Duration::from_secs(5 * 60);
/// Whoever was asked so lately is there.
const RECENT: Duration = Duration::from_secs(60);
/// Whoever has been known for so long is worth keeping.
const OLD: Duration = Duration::from_secs(30 * 60);
/// So long a guest waits before it tries to become a host. Its address is looked at then, not all the while.
const STABLE: Duration = Duration::from_secs(20 * 60);
/// After a failed try, or a sleep.
const MORE_STABLE: Duration = Duration::from_secs(60 * 60);
/// Contacts that are asked at once, because they're old or somebody doubts them.
pub(super) const MAX_CHECKS: usize = 10;
const MAX_REPLACING: usize = 3;
/// Answers and timeouts in a period that say something about the network.
const ENOUGH_TO_JUDGE: u32 = 4;
/// Who knows nobody looks for somebody after so long, and asks the DNS after so long.
const LONELY: Duration = Duration::from_secs(10);
const RESOLVE_AGAIN: Duration = Duration::from_secs(60);

/// What is due when.
#[derive(Debug)]
pub(super) struct Upkeep {
    last: Duration,
    next_check: Duration,
    next_refresh: Duration,
    next_host_try: Duration,
    /// The host for which the last try failed: it isn't tried again there.
    tried: Option<Ipv4Addr>,
    pub checks: usize,
    pub replacing: usize,
    /// Greetings, and hints that were sent in this period.
    pub greetings: u32,
    pub hints: u32,
    /// Requests of this period that were answered, and that nobody answered.
    pub answers: u32,
    pub timeouts: u32,
    /// Periods in a row in which nobody answered.
    silent: u32,
    next_resolve: Duration,
}

impl Upkeep {
    pub(super) fn new(now: Duration, rng: &mut impl Rng) -> Self {
        // Nodes that begin together don't do everything together.
        let mut spread = |time: Duration| now + time.mul_f64(rng.random_range(0.5..1.0));
        Upkeep {
            last: now,
            next_check: spread(CHECK_EVERY),
            next_refresh: spread(REFRESH_AFTER),
            next_host_try: now + STABLE,
            tried: None,
            checks: 0,
            replacing: 0,
            greetings: 0,
            hints: 0,
            answers: 0,
            timeouts: 0,
            silent: 0,
            next_resolve: now,
        }
    }

    /// We know nobody: that's not to last.
    pub(super) fn lonely(&mut self, now: Duration) {
        self.next_check = now + LONELY;
    }

    /// Names are looked up.
    pub(super) fn resolving(&mut self, now: Duration) {
        self.next_resolve = now + RESOLVE_AGAIN;
    }

    pub(super) fn next(&self) -> Duration {
        self.last + PERIOD
    }

    /// Every search teaches us about new nodes.
    pub(super) fn searched(&mut self, now: Duration) {
        self.next_refresh = now + REFRESH_AFTER;
    }
}

impl Node {
    /// Does what is due.
    pub(super) fn keep_up(&mut self) {
        let now = self.now;
        if now < self.upkeep.next() {
            return;
        }
        if now >= self.upkeep.last + SLEPT {
            self.wake(now);
        }
        self.upkeep.last = now;
        (self.upkeep.greetings, self.upkeep.hints) = (0, 0);
        self.judge_network();
        let mut fresh = [0; 32];
        self.rng.fill(&mut fresh);
        self.tokens.rotate(now, || fresh);
        self.store.expire(now);
        if !self.start.done {
            return;
        }
        if self.config.role == Role::Adaptive && !self.host && now >= self.upkeep.next_host_try {
            self.upkeep.next_host_try = now + MORE_STABLE;
            let host = self.samples.outside().map(|outside| outside.host());
            if host != self.upkeep.tried || host.is_none() {
                self.upkeep.tried = host;
                self.check_reach(Aim::Host);
            }
        }
        if self.table.is_empty() && !self.config.names.is_empty() && now >= self.upkeep.next_resolve {
            self.resolve();
        }
        if now >= self.upkeep.next_check {
            self.upkeep.next_check = now + if self.table.is_empty() { LONELY } else { CHECK_EVERY };
            self.check_oldest();
        }
        if now >= self.upkeep.next_refresh {
            self.refresh();
        }
    }

    /// Offline is who asked some in each of two periods, and got no answer at all.
    fn judge_network(&mut self) {
        let (answers, timeouts) = (std::mem::take(&mut self.upkeep.answers), std::mem::take(&mut self.upkeep.timeouts));
        if answers + timeouts < ENOUGH_TO_JUDGE {
            return;
        }
        let was_online = self.is_online();
        self.upkeep.silent = if answers == 0 { self.upkeep.silent + 1 } else { 0 };
        if self.is_online() != was_online {
            self.tell(Event::Online(self.is_online()));
            if !was_online {
                self.renew_all();
                self.refresh();
            }
        }
    }

    /// Whether anybody answers, as far as is known.
    pub fn is_online(&self) -> bool {
        self.upkeep.silent < 2
    }

    /// Takes note that time passed without us, or that the network is another: nothing we know is certain any more.
    pub fn wake(&mut self, now: Duration) {
        self.now = self.now.max(now);
        let soon = self.now + PERIOD;
        self.upkeep.next_check = soon;
        self.upkeep.next_refresh = soon;
        self.upkeep.next_resolve = soon;
        self.upkeep.next_host_try = self.now + MORE_STABLE;
        self.upkeep.tried = None;
        self.table.age(OLD);
        self.renew_all();
        if self.config.role == Role::Adaptive && self.host {
            self.host = false;
            self.tell_reach();
        }
    }

    /// Looks for new nodes in some part of the DHT.
    pub(super) fn refresh(&mut self) {
        let target = self.table.iter().choose(&mut self.rng).map_or(self.table.id(), |contact| contact.id);
        self.set_out(Search::new(target, Command::FindNode), Kind::Refresh);
    }

    fn check_oldest(&mut self) {
        // Who knows nobody, or not where it is, looks around instead.
        if self.table.is_empty() || self.start.again {
            return self.refresh();
        }
        let mut contacts: Vec<_> = self.table.iter().map(|contact| (contact.asked, contact.id)).collect();
        contacts.sort_unstable();
        let count = match self.requests.len() {
            _ if self.now.saturating_sub(contacts[0].0) < RECENT => 2,
            3.. => 3,
            _ => 5,
        };
        for (_, id) in contacts.into_iter().take(count) {
            self.check(id);
        }
    }

    /// Asks a contact whether it's there; if not, it is forgotten.
    pub(super) fn check(&mut self, id: Id) {
        let now = self.now;
        if self.upkeep.checks >= MAX_CHECKS {
            return;
        }
        let Some(contact) = self.table.get_mut(&id) else { return };
        contact.asked = now;
        let address = contact.address;
        if self.request(address, Question::PING, Purpose::Check(id), TRIES).is_some() {
            self.upkeep.checks += 1;
        }
    }

    /// Gives the place of a contact to a new one if the old one doesn't answer.
    pub(super) fn replace(&mut self, oldest: Id, new: Contact) {
        let now = self.now;
        if !self.start.done || self.upkeep.replacing >= MAX_REPLACING {
            return;
        }
        let Some(old) = self.table.get_mut(&oldest) else { return };
        let is_proven = now.saturating_sub(old.asked) < RECENT && now.saturating_sub(old.added) > OLD;
        if old.asked == now || is_proven {
            return;
        }
        old.asked = now;
        let address = old.address;
        if self.request(address, Question::PING, Purpose::Replace(oldest, new), TRIES).is_some() {
            self.upkeep.replacing += 1;
        }
    }

    /// Asks somebody who says to be a host whether it is: the address of a request can be forged. If it answers, it is
    /// [met](Node::meet).
    pub(super) fn greet(&mut self, contact: Contact) {
        const MAX_GREETINGS: u32 = 100;
        if self.upkeep.greetings >= MAX_GREETINGS || !self.is_acceptable(&contact.address) {
            return;
        }
        // A full row is only worth a question if somebody in it may be gone.
        let is_worth_it = match self.table.place_for(&contact.id) {
            Added::Yes => true,
            Added::Known => false,
            Added::Full { oldest } => {
                self.table.get(&oldest).is_some_and(|old| self.now.saturating_sub(old.asked) >= RECENT)
            }
        };
        if is_worth_it {
            self.upkeep.greetings += 1;
            self.request(contact.address, Question::PING, Purpose::Greet, 1);
        }
    }
}
