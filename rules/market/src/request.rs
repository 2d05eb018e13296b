//! A request on the ledger: what is asked, what money is left, and what waits for what.

use crate::{
    Balance, Block, ContractId, MAX_REPLICAS, MAX_RESTING,
    contract::{Contract, End, Reason, State},
    params::Params,
    terms::{Segments, Sources, Terms, total_bytes},
};
use alloc::vec::Vec;
use bounded_collections::{BoundedVec, ConstU32};
use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

/// Contracts that a request may have at a time: its replicas, and as many that are ending.
pub const MAX_LIVE: u32 = 2 * MAX_REPLICAS;
/// Hosters in a row that can't reach any source, after which nobody is blamed but the source.
pub const UNREACHABLE_AFTER: u32 = 2;
/// Distinct hosters that find another root than the sponsor's, after which the request stops.
pub const MISMATCH_AFTER: u32 = 2;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo, MaxEncodedLen)]
pub struct Request<Account> {
    /// Who pays.
    pub sponsor: Account,
    /// What was asked.
    pub terms: Terms,
    /// What is to be hosted.
    pub segments: Segments,
    /// Where it can be fetched, besides from the hosters that have it.
    pub sources: Sources,
    /// When it was opened.
    pub opened: Block,
    /// When hosting ends; set by the first acceptance.
    pub ends: Option<Block>,
    /// Money that no contract has reserved.
    pub budget: Balance,
    /// Its contracts, whatever their state.
    pub contracts: BoundedVec<ContractId, ConstU32<MAX_LIVE>>,
    /// Set while replicas are vacant.
    pub waiting: Option<Waiting>,
    /// Hosters that are not to be drawn before a block.
    pub resting: BoundedVec<Resting<Account>, ConstU32<MAX_RESTING>>,
    /// Hosters in a row that could not reach any source.
    pub unreachable: u32,
    /// Hosters that found another root than the claimed one.
    pub mismatched: u32,
    /// Set once it takes no new hosters; when the last contract is over, what is left of the budget returns.
    pub closing: Option<Closing>,
    /// The block in which the ledger looks at it next.
    pub wake: Block,
}

/// A hoster that has had its turn.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo, MaxEncodedLen)]
pub struct Resting<Account> {
    /// The hoster.
    pub hoster: Account,
    /// First block in which it may be drawn again.
    pub until: Block,
}

/// Vacant replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, TypeInfo, MaxEncodedLen)]
pub struct Waiting {
    /// What they wait for.
    pub why: Why,
    /// Draws that found nobody since one found somebody.
    pub tries: u32,
    /// When the next draw is.
    pub next: Block,
}

/// Why replicas are vacant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub enum Why {
    /// The draw comes some blocks later, with randomness that nobody knows now.
    #[codec(index = 0)]
    Draw,
    /// No offer stands.
    #[codec(index = 1)]
    NoOffers,
    /// Every offer asks for more than the highest price.
    #[codec(index = 2)]
    PriceTooLow,
    /// No offer is for so long a term.
    #[codec(index = 3)]
    TermTooLong,
    /// No offer has so much free space.
    #[codec(index = 4)]
    NoSpace,
    /// All that fit already have this request, or have had their turn lately.
    #[codec(index = 5)]
    NoOtherHosters,
    /// Hosters in a row could not reach any source.
    #[codec(index = 6)]
    SourceUnreachable,
    /// The budget doesn't pay for one more period.
    #[codec(index = 7)]
    BudgetSpent,
}

/// Why a request takes no new hosters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub enum Closing {
    /// The term is over.
    #[codec(index = 0)]
    TermOver,
    /// The sponsor cancelled.
    #[codec(index = 1)]
    Cancelled,
    /// Two hosters found that the data doesn't have the claimed root.
    #[codec(index = 2)]
    RootMismatch,
    /// Nobody accepted it for as long as its term, a day at least.
    #[codec(index = 3)]
    NobodyHosted,
}

/// What is to be done about a request in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// End a contract that has not become a hosting one, and free its replica.
    Drop(ContractId, End),
    /// Pay the rest of a contract that is over and remove it.
    Finish(ContractId),
    /// Take no more hosters: the term is over, or nobody came for too long.
    Close(Closing),
    /// Draw hosters for this many vacant replicas.
    Draw(u32),
    /// Give back what is left and remove the request.
    Remove,
}

impl<Account: Ord + Clone> Request<Account> {
    /// A request that was just opened, with its budget locked.
    pub fn open(
        sponsor: Account,
        terms: Terms,
        segments: Segments,
        sources: Sources,
        budget: Balance,
        now: Block,
        params: &Params,
    ) -> Self {
        let next = now.saturating_add(params.match_after);
        Self {
            sponsor,
            terms,
            segments,
            sources,
            opened: now,
            ends: None,
            budget,
            contracts: BoundedVec::new(),
            waiting: Some(Waiting { why: Why::Draw, tries: 0, next }),
            resting: BoundedVec::new(),
            unreachable: 0,
            mismatched: 0,
            closing: None,
            wake: next,
        }
    }

    /// All bytes of one replica.
    pub fn bytes(&self) -> u64 {
        total_bytes(&self.segments)
    }

    /// Blocks for which a hoster that accepts now would host.
    pub fn remaining_term(&self, now: Block) -> Block {
        self.ends.map_or(self.terms.term, |ends| ends.saturating_sub(now))
    }

    /// Replicas that no contract fills.
    pub fn vacancies(&self, contracts: &[(ContractId, Contract<Account>)]) -> u32 {
        let filled = contracts.iter().filter(|(_, contract)| contract.fills_a_replica()).count() as u32;
        self.terms.replicas.saturating_sub(filled)
    }

    /// What is to be done in block `now`. Call again after doing it, until nothing is left: tasks can make others due.
    pub fn tasks(&self, contracts: &[(ContractId, Contract<Account>)], now: Block, params: &Params) -> Vec<Task> {
        let (end, why) = self.end(params);
        let over = self.closing.is_some() || now >= end;
        let mut tasks = Vec::new();
        if over && self.closing.is_none() {
            tasks.push(Task::Close(why));
        }
        for (id, contract) in contracts {
            match contract.state {
                State::Drawn { .. } | State::Fetching { .. } if over => tasks.push(Task::Drop(*id, End::Cancelled)),
                State::Drawn { answer_by } if now > answer_by => tasks.push(Task::Drop(*id, End::Silent)),
                State::Fetching { by } if now > by => tasks.push(Task::Drop(*id, End::TooSlow)),
                State::Hosting { over_after } | State::Ending { over_after, .. } if now > over_after => {
                    tasks.push(Task::Finish(*id))
                }
                _ => {}
            }
        }
        if !tasks.is_empty() {
            return tasks;
        }
        if over && contracts.is_empty() {
            tasks.push(Task::Remove);
        }
        if self.next_draw(now, params).is_some_and(|next| next <= now) {
            tasks.push(Task::Draw(self.vacancies(contracts)));
        }
        tasks
    }

    /// When it closes by itself, and why.
    fn end(&self, params: &Params) -> (Block, Closing) {
        match self.ends {
            Some(ends) => (ends, Closing::TermOver),
            None => (self.opened.saturating_add(self.terms.term.max(params.day())), Closing::NobodyHosted),
        }
    }

    /// When replicas are drawn for next, if any are vacant. In the last period of the term nobody is made to fetch any more.
    fn next_draw(&self, now: Block, params: &Params) -> Option<Block> {
        let waiting = self.waiting.filter(|_| self.closing.is_none() && self.remaining_term(now) >= params.period)?;
        Some(waiting.next)
    }

    /// The block in which the ledger has to look at it next, later than `now`.
    pub fn next_wake(&self, contracts: &[(ContractId, Contract<Account>)], now: Block, params: &Params) -> Block {
        let contracts = contracts.iter().map(|(_, contract)| match contract.state {
            // Nobody waits for them any more.
            State::Drawn { .. } | State::Fetching { .. } if self.closing.is_some() => now,
            _ => contract.wakes_at(),
        });
        let end = self.closing.is_none().then(|| self.end(params).0);
        contracts.chain(self.next_draw(now, params)).chain(end).min().unwrap_or(now).max(now.saturating_add(1))
    }

    /// Whether a draw may name `hoster` now: it has no contract of this request, and is not resting.
    pub fn may_draw(&self, hoster: &Account, contracts: &[(ContractId, Contract<Account>)], now: Block) -> bool {
        !contracts.iter().any(|(_, contract)| contract.hoster == *hoster)
            && !self.resting.iter().any(|resting| resting.hoster == *hoster && resting.until > now)
    }

    /// A replica became vacant: draw again soon.
    pub fn vacated(&mut self, now: Block, params: &Params) {
        if self.closing.is_none() {
            let next = now.saturating_add(params.match_after);
            self.waiting = Some(match self.waiting {
                Some(waiting) => Waiting { next: waiting.next.min(next), ..waiting },
                None => Waiting { why: Why::Draw, tries: 0, next },
            });
        }
    }

    /// A draw named `found` hosters for `vacancies` replicas; `why` says what failed for the others.
    pub fn drew(&mut self, found: u32, vacancies: u32, why: Option<Why>, now: Block, params: &Params) {
        self.waiting = why.filter(|_| found < vacancies).map(|why| {
            let before = self.waiting.filter(|_| found == 0).map_or(0, |waiting| waiting.tries);
            Waiting { why, tries: before.saturating_add(1), next: now.saturating_add(params.retry_within(before)) }
        });
    }

    /// A hoster was silent, too slow, or passed: it rests, and what it says of the data counts.
    pub fn lost(&mut self, hoster: Account, end: End, now: Block, params: &Params) {
        let until = match end {
            // Whoever has seen a wrong root counts once.
            End::Passed(Reason::RootMismatch) => Block::MAX,
            _ => now.saturating_add(params.rest),
        };
        self.rest(hoster, until, now);
        match end {
            End::Passed(Reason::RootMismatch) => self.mismatched = self.mismatched.saturating_add(1),
            End::Passed(Reason::Unreachable) => self.unreachable = self.unreachable.saturating_add(1),
            _ => {}
        }
        self.vacated(now, params);
        if let Some(waiting) = &mut self.waiting
            && self.unreachable >= UNREACHABLE_AFTER
        {
            let tries = self.unreachable - UNREACHABLE_AFTER;
            *waiting = Waiting {
                why: Why::SourceUnreachable,
                tries,
                next: now.saturating_add(params.retry_within(tries).max(params.match_after)),
            };
        }
    }

    /// Whether enough distinct hosters found another root, and none found the claimed one.
    pub fn is_mismatched(&self) -> bool {
        self.mismatched >= MISMATCH_AFTER && self.ends.is_none()
    }

    /// A hoster has the data: the source is good, and the term runs.
    pub fn accepted(&mut self, now: Block) {
        self.unreachable = 0;
        self.ends.get_or_insert(now.saturating_add(self.terms.term));
    }

    /// The end of hosting for a hoster that accepts in block `now`.
    pub fn ends_for(&self, now: Block) -> Block {
        self.ends.unwrap_or(now.saturating_add(self.terms.term))
    }

    /// Takes no more hosters.
    pub fn close(&mut self, why: Closing) {
        self.closing.get_or_insert(why);
        self.waiting = None;
    }

    fn rest(&mut self, hoster: Account, until: Block, now: Block) {
        self.resting.retain(|resting| resting.until > now && resting.hoster != hoster);
        if self.resting.is_full() {
            // The one that would be back first makes room; its turn only comes a little earlier.
            let first = self.resting.iter().enumerate().min_by_key(|(_, resting)| resting.until).map(|(at, _)| at);
            first.map(|at| self.resting.swap_remove(at));
        }
        self.resting.try_push(Resting { hoster, until }).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use datdot_proof::segment::Segment;

    const PARAMS: Params = Params::dev();
    type Contracts = Vec<(ContractId, Contract<&'static str>)>;

    fn request() -> Request<&'static str> {
        let terms = Terms { replicas: 2, term: 100, max_price: 5 };
        let segments = vec![Segment { bytes: 10, root: [0; 32] }].try_into().unwrap();
        Request::open("alice", terms, segments, Sources::new(), 1_000, 10, &PARAMS)
    }

    fn drawn(id: ContractId, hoster: &'static str, now: Block) -> (ContractId, Contract<&'static str>) {
        (id, Contract::drawn(0, hoster, 10, 1, now, &PARAMS))
    }

    #[test]
    fn the_draw_comes_after_randomness_that_the_sponsor_could_not_know() {
        let request = request();
        assert_eq!(request.tasks(&[], request.wake - 1, &PARAMS), []);
        assert_eq!(request.wake, 10 + PARAMS.match_after);
        assert_eq!(request.tasks(&[], request.wake, &PARAMS), [Task::Draw(2)]);
    }

    #[test]
    fn silence_and_slowness_free_the_replica_and_the_hoster_rests() {
        let mut request = request();
        request.drew(2, 2, None, 12, &PARAMS);
        let contracts: Contracts = vec![drawn(1, "bob", 12), drawn(2, "carol", 12)];
        let late = request.next_wake(&contracts, 12, &PARAMS);
        assert_eq!(request.tasks(&contracts, late, &PARAMS), [Task::Drop(1, End::Silent), Task::Drop(2, End::Silent)]);
        request.lost("bob", End::Silent, late, &PARAMS);
        assert!(!request.may_draw(&"bob", &[], late) && request.may_draw(&"bob", &[], late + PARAMS.rest));
        assert!(!request.may_draw(&"carol", &contracts[1..], late));
        assert_eq!(request.vacancies(&contracts[1..]), 1);
        assert_eq!(request.tasks(&contracts[1..][..0], late + PARAMS.match_after, &PARAMS), [Task::Draw(2)]);
    }

    #[test]
    fn fruitless_draws_wait_longer_and_longer_but_never_for_ever() {
        let mut request = request();
        let mut waits = Vec::new();
        for _ in 0..10 {
            request.drew(0, 2, Some(Why::NoSpace), 100, &PARAMS);
            waits.push(request.waiting.unwrap().next - 100);
        }
        assert_eq!(waits[..4], [2, 4, 8, 16]);
        assert_eq!(waits[9], PARAMS.retry_at_most);
    }

    #[test]
    fn two_hosters_that_can_not_fetch_make_it_the_source_s_fault_until_somebody_can() {
        let mut request = request();
        request.lost("bob", End::Passed(Reason::Unreachable), 20, &PARAMS);
        assert_eq!(request.waiting.unwrap().why, Why::Draw);
        request.lost("carol", End::Passed(Reason::Unreachable), 21, &PARAMS);
        assert_eq!(request.waiting.unwrap().why, Why::SourceUnreachable);
        request.accepted(30);
        request.vacated(31, &PARAMS);
        assert_eq!((request.unreachable, request.ends), (0, Some(130)));
    }

    #[test]
    fn a_root_is_wrong_when_two_hosters_say_so_and_none_has_it() {
        let mut request = request();
        request.lost("bob", End::Passed(Reason::RootMismatch), 20, &PARAMS);
        assert!(!request.is_mismatched());
        assert!(!request.may_draw(&"bob", &[], Block::MAX - 1));
        request.lost("carol", End::Passed(Reason::RootMismatch), 20, &PARAMS);
        assert!(request.is_mismatched());
        request.accepted(30);
        assert!(!request.is_mismatched());
    }

    #[test]
    fn a_request_that_nobody_hosts_does_not_wait_for_ever() {
        let mut request = request();
        request.drew(0, 2, Some(Why::NoSpace), 12, &PARAMS);
        let last = 10 + PARAMS.day();
        assert_eq!(request.tasks(&[], last - 1, &PARAMS), [Task::Draw(2)]);
        assert_eq!(request.tasks(&[], last, &PARAMS), [Task::Close(Closing::NobodyHosted)]);
        request.waiting = Some(Waiting { next: last + 5, ..request.waiting.unwrap() });
        assert_eq!(request.next_wake(&[], last - 9, &PARAMS), last);
    }

    #[test]
    fn a_closed_request_waits_for_no_fetch() {
        let mut request = request();
        request.drew(2, 2, None, 12, &PARAMS);
        let contracts: Contracts = vec![drawn(1, "bob", 12)];
        request.close(Closing::Cancelled);
        assert_eq!(request.next_wake(&contracts, 13, &PARAMS), 14);
        assert_eq!(request.tasks(&contracts, 14, &PARAMS), [Task::Drop(1, End::Cancelled)]);
    }

    #[test]
    fn an_ended_term_closes_then_finishes_then_returns_the_rest() {
        let mut request = request();
        request.drew(2, 2, None, 12, &PARAMS);
        request.accepted(20);
        let mut contracts: Contracts = vec![drawn(1, "bob", 12), drawn(2, "carol", 115)];
        contracts[0].1.state = State::Hosting { over_after: 123 };
        assert_eq!(
            request.tasks(&contracts, 120, &PARAMS),
            [Task::Close(Closing::TermOver), Task::Drop(2, End::Cancelled)]
        );
        request.close(Closing::TermOver);
        contracts.pop();
        assert_eq!(
            (request.tasks(&contracts, 120, &PARAMS), request.next_wake(&contracts, 120, &PARAMS)),
            (vec![], 124)
        );
        assert_eq!(request.tasks(&contracts, 124, &PARAMS), [Task::Finish(1)]);
        assert_eq!(request.tasks(&[], 124, &PARAMS), [Task::Remove]);
    }
}
