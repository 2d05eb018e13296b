//! What others see as our address.
//!
//! Every answer says under which address we asked. If nearly all agree on host and port, that is our address; if they
//! agree on the host alone, a NAT gives us another port for each whom we talk to, and nobody can reach us by asking.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};

const KEPT: usize = 32;

/// The last answers, one per node that answered.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    /// Who said it, and what.
    seen: VecDeque<(SocketAddrV4, SocketAddrV4)>,
    verdict: Option<Outside>,
}

/// What the samples agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outside {
    /// One address for everybody.
    Address(SocketAddrV4),
    /// One host, but a port per destination.
    Randomized(Ipv4Addr),
}

impl Outside {
    /// The host, in either case.
    pub fn host(&self) -> Ipv4Addr {
        match self {
            Outside::Address(address) => *address.ip(),
            Outside::Randomized(host) => *host,
        }
    }
}

impl Samples {
    /// Notes that `by` sees us as `us`. What it said before no longer counts, so nobody has two votes.
    pub fn add(&mut self, by: SocketAddrV4, us: SocketAddrV4) {
        self.seen.retain(|(who, _)| *who != by);
        if self.seen.len() == KEPT {
            self.seen.pop_front();
        }
        self.seen.push_back((by, us));
        self.verdict = self.judge();
    }

    /// What the samples agree on, if they do.
    pub fn outside(&self) -> Option<Outside> {
        self.verdict
    }

    /// How many nodes have told us.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether nobody has told us yet.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// As in nat-sampler: one of four, two of eight and three of more may disagree.
    fn judge(&self) -> Option<Outside> {
        let count = self.seen.len();
        let enough = count
            - match count {
                0..4 => 0,
                4..8 => 1,
                8..12 => 2,
                _ => 3,
            };
        let votes = |same: &dyn Fn(&SocketAddrV4) -> bool| self.seen.iter().filter(|(_, us)| same(us)).count();
        // Whoever has nearly all votes is among the last few.
        let candidates = || self.seen.iter().rev().take(4).map(|(_, us)| us);
        let address = candidates().find(|us| votes(&|other| other == *us) >= enough);
        let host = candidates().find(|us| votes(&|other| other.ip() == us.ip()) >= enough);
        address.map(|us| Outside::Address(*us)).or(host.map(|us| Outside::Randomized(*us.ip())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> SocketAddrV4 {
        SocketAddrV4::new([9, 9, 9, n].into(), 1)
    }

    fn us(port: u16) -> SocketAddrV4 {
        SocketAddrV4::new([5, 6, 7, 8].into(), port)
    }

    fn verdict(ports: impl IntoIterator<Item = u16>) -> Option<Outside> {
        let mut samples = Samples::default();
        for (n, port) in ports.into_iter().enumerate() {
            samples.add(node(n as u8), us(port));
        }
        samples.outside()
    }

    #[test]
    fn a_few_may_disagree() {
        assert_eq!(verdict([]), None);
        assert_eq!(verdict([7]), Some(Outside::Address(us(7))));
        assert_eq!(verdict([7, 8]), Some(Outside::Randomized(*us(0).ip())));
        assert_eq!(verdict([7, 7, 8, 7]), Some(Outside::Address(us(7))));
        assert_eq!(verdict([7, 7, 8, 7, 8]), Some(Outside::Randomized(*us(0).ip())));
        assert_eq!(verdict([7, 7, 7, 8, 7, 8, 7, 7]), Some(Outside::Address(us(7))));
    }

    #[test]
    fn a_new_address_wins_once_the_old_answers_are_gone() {
        assert_eq!(verdict([1; 32].into_iter().chain([2; 28])), Some(Outside::Randomized(*us(0).ip())));
        assert_eq!(verdict([1; 32].into_iter().chain([2; 29])), Some(Outside::Address(us(2))));
    }

    #[test]
    fn nobody_has_two_votes() {
        let mut samples = Samples::default();
        for n in 0..8 {
            samples.add(node(n), us(1));
        }
        for port in 100..200 {
            samples.add(node(0), SocketAddrV4::new([6, 6, 6, 6].into(), port));
        }
        assert_eq!(samples.outside(), Some(Outside::Address(us(1))));
    }
}
