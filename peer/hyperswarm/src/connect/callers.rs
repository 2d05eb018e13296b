//! Whose calls a server takes: a handshake costs a quarter of a millisecond, and a caller that doesn't come ten seconds of
//! waiting, whoever begins it.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Calls that are answered and wait for the caller's first packet.
pub(super) const MAX_WAITING: usize = 256;
/// Of those, how many may be from one host.
const MAX_OF_A_HOST: usize = 32;
/// Calls that are answered in a second, and those of one host.
const PER_SECOND: usize = 400;
const OF_A_HOST_PER_SECOND: usize = 50;

/// Callers that are waited for, and how many called in this second.
#[derive(Debug)]
pub(super) struct Callers {
    hosts: HashMap<Ipv4Addr, usize>,
    waiting: usize,
    second: Instant,
    called: usize,
    /// Of those, how many were each host's.
    callers: HashMap<Ipv4Addr, usize>,
}

impl Callers {
    pub(super) fn new(now: Instant) -> Self {
        Callers { hosts: HashMap::new(), waiting: 0, second: now, called: 0, callers: HashMap::new() }
    }

    /// Whether a new call may cost us something now. Nobody forges our own loopback addresses.
    pub(super) fn may_call(&mut self, now: Instant, host: Ipv4Addr) -> bool {
        if now >= self.second + Duration::from_secs(1) {
            (self.second, self.called) = (now, 0);
            self.callers.clear();
        }
        let has = |hosts: &HashMap<_, usize>, most| hosts.get(&host).is_some_and(|count| *count >= most);
        let is_crowding = has(&self.hosts, MAX_OF_A_HOST) || has(&self.callers, OF_A_HOST_PER_SECOND);
        let may = (!is_crowding || host.is_loopback()) && self.waiting < MAX_WAITING && self.called < PER_SECOND;
        if may {
            self.called += 1;
            *self.callers.entry(host).or_default() += 1;
        }
        may
    }

    /// One is waited for.
    pub(super) fn wait_for(&mut self, host: Ipv4Addr) {
        self.waiting += 1;
        *self.hosts.entry(host).or_default() += 1;
    }

    /// It came, or won't come any more.
    pub(super) fn done(&mut self, host: Ipv4Addr) {
        self.waiting = self.waiting.saturating_sub(1);
        if let Some(count) = self.hosts.get_mut(&host) {
            *count -= 1;
            if *count == 0 {
                self.hosts.remove(&host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_keeps_nobody_else_from_calling() {
        let now = Instant::now();
        let mut callers = Callers::new(now);
        let host = |n: u8| Ipv4Addr::new(5, 5, 5, n);
        let call = |callers: &mut Callers, now, n| {
            let may = callers.may_call(now, host(n));
            if may {
                callers.wait_for(host(n));
            }
            may
        };
        assert_eq!((0..1_000).filter(|_| call(&mut callers, now, 1)).count(), MAX_OF_A_HOST);
        assert!(call(&mut callers, now, 2));
        callers.done(host(1));
        assert!(call(&mut callers, now, 1));
        // All together wait for so many, and call so often.
        assert_eq!((3..50).map(|n| (0..10).filter(|_| call(&mut callers, now, n)).count()).sum::<usize>(), 256 - 33);
        for n in 0..50 {
            (0..40).for_each(|_| callers.done(host(n)));
        }
        assert_eq!((callers.waiting, callers.hosts.len()), (0, 0));
        let calls = (0..1_000).filter(|n| callers.may_call(now, host((n % 200) as u8))).count();
        assert_eq!(calls, PER_SECOND - 33 - 1 - (256 - 33));
        assert!(callers.may_call(now + Duration::from_secs(1), host(1)));
    }

    #[test]
    fn one_host_that_calls_without_end_leaves_most_of_a_second_to_others() {
        let now = Instant::now();
        let mut callers = Callers::new(now);
        // Rubbish: nobody is waited for.
        let mut call = |now, host: [u8; 4]| (0..10_000).filter(|_| callers.may_call(now, host.into())).count();
        assert_eq!(call(now, [5, 5, 5, 1]), OF_A_HOST_PER_SECOND);
        assert_eq!(call(now, [5, 5, 5, 2]), OF_A_HOST_PER_SECOND);
        assert_eq!(call(now + Duration::from_secs(1), [5, 5, 5, 1]), OF_A_HOST_PER_SECOND);
        assert_eq!(call(now + Duration::from_secs(1), [127, 0, 0, 1]), PER_SECOND - OF_A_HOST_PER_SECOND);
    }
}
