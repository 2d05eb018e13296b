//! One hoster hosting one request's segments, from the draw to the last payment.
//!
//! ```text
//! drawn ──take──▶ fetching ──accept──▶ hosting ──term over──▶ (paid, gone)
//!   │ pass, silence   │ pass, too slow     │ forfeit, lapse, cancel
//!   ▼                 ▼                    ▼
//! (gone)            (gone)              ending ──last window closed──▶ (paid, gone)
//! ```

use crate::{
    Balance, Block, ContractId, RequestId, clock,
    hoster::{Holding, Holdings},
    params::Params,
    payout,
    request::Request,
};
use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

/// A contract between a request and a hoster.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo, MaxEncodedLen)]
pub struct Contract<Account> {
    /// The request whose segments are hosted.
    pub request: RequestId,
    /// Who hosts them.
    pub hoster: Account,
    /// All bytes of the segments.
    pub bytes: u64,
    /// Price per GiB·day: the offer's, copied at the draw.
    pub price: Balance,
    /// Where it stands.
    pub state: State,
    /// The sponsor's money set apart for it at acceptance; `paid` is part of it.
    pub reserve: Balance,
    /// What was paid so far.
    pub paid: Balance,
}

/// Where a contract stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, TypeInfo, MaxEncodedLen)]
pub enum State {
    /// The hoster is to take or pass.
    #[codec(index = 0)]
    Drawn {
        /// Last block to answer in.
        answer_by: Block,
    },
    /// The hoster fetches the data.
    #[codec(index = 1)]
    Fetching {
        /// Last block to accept in.
        by: Block,
    },
    /// The hoster holds the data and proves it.
    #[codec(index = 2)]
    Hosting {
        /// Last block in which its last challenge can be answered.
        over_after: Block,
    },
    /// Hosting ended early; the last open challenge still counts.
    #[codec(index = 3)]
    Ending {
        /// Why.
        why: End,
        /// Last block in which its last challenge can be answered.
        over_after: Block,
    },
}

/// Why a contract ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub enum End {
    /// The term, or the money for it, is over.
    #[codec(index = 0)]
    Completed,
    /// The sponsor cancelled, or the request was stopped.
    #[codec(index = 1)]
    Cancelled,
    /// The hoster gave it up.
    #[codec(index = 2)]
    Forfeited,
    /// The hoster missed too many challenges in a row.
    #[codec(index = 3)]
    Lapsed,
    /// The hoster passed.
    #[codec(index = 4)]
    Passed(Reason),
    /// The hoster neither took nor passed in time.
    #[codec(index = 5)]
    Silent,
    /// The hoster did not accept in time.
    #[codec(index = 6)]
    TooSlow,
}

/// Why a hoster passes. None of them costs it anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub enum Reason {
    /// It would rather not; no reason is owed.
    #[codec(index = 0)]
    Unwilling,
    /// Its disk is full.
    #[codec(index = 1)]
    NoRoom,
    /// None of the sources could be reached, or had the data.
    #[codec(index = 2)]
    Unreachable,
    /// The bytes of the feed don't hash to the root that the sponsor claimed.
    #[codec(index = 3)]
    RootMismatch,
}

/// Why a contract can't do what was asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongState {
    /// Not drawn, or taken before.
    #[error("the contract is not waiting to be taken")]
    NotDrawn,
    /// Not being fetched.
    #[error("the contract is not being fetched: take it first")]
    NotFetching,
    /// Not hosting.
    #[error("the contract is not hosting")]
    NotHosting,
    /// The deadline is over.
    #[error("the deadline was block {0}")]
    TooLate(Block),
    /// The request ends, or its budget does, before a single period could be proven.
    #[error("not one more period fits into the request's term and budget")]
    NothingLeft,
}

impl<Account: Ord + Clone> Contract<Account> {
    /// A contract for a hoster that was just drawn.
    pub fn drawn(request: RequestId, hoster: Account, bytes: u64, price: Balance, now: Block, params: &Params) -> Self {
        let answer_by = now.saturating_add(params.answer_within);
        Self { request, hoster, bytes, price, state: State::Drawn { answer_by }, reserve: 0, paid: 0 }
    }

    /// Whether it fills one of the request's replicas, now or soon.
    pub fn fills_a_replica(&self) -> bool {
        !matches!(self.state, State::Ending { .. })
    }

    /// The first block in which something is to be done about it if nobody does anything.
    pub fn wakes_at(&self) -> Block {
        let (State::Drawn { answer_by: last }
        | State::Fetching { by: last }
        | State::Hosting { over_after: last }
        | State::Ending { over_after: last, .. }) = self.state;
        last.saturating_add(1)
    }

    /// The hoster takes it and has until a block that depends on the bytes to fetch them.
    pub fn take(&mut self, now: Block, params: &Params) -> Result<(), WrongState> {
        match self.state {
            State::Drawn { answer_by } if now > answer_by => Err(WrongState::TooLate(answer_by)),
            State::Drawn { .. } => {
                self.state = State::Fetching { by: now.saturating_add(params.fetch_within(self.bytes)) };
                Ok(())
            }
            _ => Err(WrongState::NotDrawn),
        }
    }

    /// The hoster may still pass: before or while it fetches. What it says of the source or the data counts against the request, so
    /// it must have taken the contract to say it.
    pub fn may_pass(&self, reason: Reason) -> Result<(), WrongState> {
        match (self.state, reason) {
            (State::Fetching { .. }, _) | (State::Drawn { .. }, Reason::Unwilling | Reason::NoRoom) => Ok(()),
            _ => Err(WrongState::NotFetching),
        }
    }

    /// The hoster has the data, and the request's term runs. Moves what the rest of the term costs, as far as it goes, from the
    /// request's budget into the reserve, and gives the holding that the challenges of a hoster with this `phase` cover from the
    /// next one on.
    pub fn accept(
        &mut self,
        id: ContractId,
        request: &mut Request<Account>,
        phase: Block,
        now: Block,
        params: &Params,
    ) -> Result<Holding, WrongState> {
        match self.state {
            State::Fetching { by } if now > by => return Err(WrongState::TooLate(by)),
            State::Fetching { .. } => {}
            _ => return Err(WrongState::NotFetching),
        }
        let first = clock::next(phase, now, params);
        // Challenges strictly before the end count.
        let last = clock::next(phase, request.ends_for(now).saturating_sub(1), params);
        let wanted = last.saturating_sub(first);
        let periods = payout::affordable(request.budget, wanted, self.price, self.bytes, params);
        let reserve = payout::due(periods, self.price, self.bytes, params)
            .filter(|_| periods > 0)
            .ok_or(WrongState::NothingLeft)?;
        let until = first + periods;
        request.budget -= reserve;
        request.accepted(now);
        self.reserve = reserve;
        self.state = State::Hosting { over_after: clock::closes(phase, until - 1, params) };
        let weight = self.price.saturating_mul(self.bytes.into());
        Ok(Holding { contract: id, weight, segments: request.segments.clone(), first, until, proven: 0 })
    }

    /// Ends hosting early. A challenge whose window is open still counts, so what is [`payable`](Self::payable) with it stays reserved;
    /// the rest is returned, to go back to the request's budget.
    pub fn end_early(
        &mut self,
        why: End,
        holding: &mut Holding,
        phase: Block,
        now: Block,
        params: &Params,
    ) -> Result<Balance, WrongState> {
        let State::Hosting { over_after } = self.state else { return Err(WrongState::NotHosting) };
        let until = clock::next(phase, now, params).clamp(holding.first, holding.until);
        holding.until = until;
        let last_window = until.checked_sub(1).map_or(0, |last| clock::closes(phase, last, params));
        self.state = State::Ending { why, over_after: last_window.min(over_after) };
        let keep = self.paid.saturating_add(self.payable(until - holding.first, now, params));
        let returned = self.reserve - keep;
        self.reserve = keep;
        Ok(returned)
    }

    /// The last pay could not be delivered: it stays owed, and is tried again a period later.
    pub fn defer(&mut self, now: Block, params: &Params) {
        self.state = State::Ending { why: self.outcome(), over_after: now.saturating_add(params.period) };
    }
}

impl<Account> Contract<Account> {
    /// What is to be paid in block `now` and was not yet, if so many periods are proven.
    ///
    /// Until hosting is over, the last of them waits for the next proof: a proof shows that the data is here, the one after it that it
    /// stayed. Whoever gives up or lapses doesn't get it.
    pub fn payable(&self, proven: u32, now: Block, params: &Params) -> Balance {
        let waits = match self.state {
            State::Hosting { over_after } => now <= over_after,
            State::Ending { why, .. } => why != End::Completed && why != End::Cancelled,
            State::Drawn { .. } | State::Fetching { .. } => true,
        };
        let periods = proven.saturating_sub(waits.into());
        // `accept` computed the reserve with the same function for at least as many periods: it fits.
        let earned = payout::due(periods, self.price, self.bytes, params).unwrap_or(self.reserve).min(self.reserve);
        earned.saturating_sub(self.paid)
    }

    /// Why it ended, for one that is over.
    pub fn outcome(&self) -> End {
        match self.state {
            State::Ending { why, .. } => why,
            _ => End::Completed,
        }
    }
}

/// Takes a contract's holding out, once it is over.
pub fn remove_holding(holdings: &mut Holdings, contract: ContractId) -> Option<Holding> {
    let at = holdings.iter().position(|holding| holding.contract == contract)?;
    Some(holdings.remove(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        params::DAT,
        terms::{Sources, Terms},
    };
    use alloc::vec;
    use datdot_proof::segment::Segment;
    use proptest::prelude::*;

    const PARAMS: Params = Params::dev();

    fn request(bytes: u64, term: Block, budget: Balance) -> Request<&'static str> {
        let segments = vec![Segment { bytes, root: [0; 32] }].try_into().unwrap();
        let terms = Terms { replicas: 1, term, max_price: Balance::MAX };
        Request::open("alice", terms, segments, Sources::new(), budget, 0, &PARAMS)
    }

    #[test]
    fn a_deadline_is_kept_or_the_contract_is_gone() {
        let drawn = Contract::drawn(0, "bob", 10, 1, 100, &PARAMS);
        let last = drawn.wakes_at() - 1;
        assert_eq!(drawn.clone().take(last, &PARAMS), Ok(()));
        assert_eq!(drawn.clone().take(last + 1, &PARAMS), Err(WrongState::TooLate(last)));

        let mut fetching = drawn;
        fetching.take(last, &PARAMS).unwrap();
        let last = fetching.wakes_at() - 1;
        let mut request = request(10, 1_000, DAT);
        let late = fetching.accept(0, &mut request, 0, last + 1, &PARAMS);
        assert_eq!((late, request.budget), (Err(WrongState::TooLate(last)), DAT));
    }

    #[test]
    fn a_larger_feed_may_be_fetched_for_longer() {
        let by = |bytes| {
            let mut contract = Contract::drawn(0, "bob", bytes, 1, 0, &PARAMS);
            contract.take(1, &PARAMS).unwrap();
            contract.wakes_at()
        };
        assert!(by(1 << 40) > by(1 << 20));
    }

    #[test]
    fn a_budget_that_pays_no_period_refuses_and_one_that_pays_some_hosts_for_those() {
        let price = 1_000 * DAT;
        let bytes = crate::GIB;
        let a_period = payout::due(1, price, bytes, &PARAMS).unwrap();
        let accept = |budget| {
            let mut contract = Contract::drawn(0, "bob", bytes, price, 0, &PARAMS);
            contract.take(1, &PARAMS).unwrap();
            contract.accept(0, &mut request(bytes, 1_000, budget), 3, 20, &PARAMS)
        };
        assert_eq!(accept(a_period - 1), Err(WrongState::NothingLeft));
        let some = accept(2 * a_period + 1).unwrap();
        assert_eq!(some.until - some.first, 2);
    }

    #[test]
    fn who_comes_for_one_proof_and_goes_earns_nothing() {
        let mut contract = Contract::drawn(0, "bob", crate::GIB, DAT, 10, &PARAMS);
        contract.take(11, &PARAMS).unwrap();
        let mut holding = contract.accept(0, &mut request(crate::GIB, 1_000, DAT), 3, 12, &PARAMS).unwrap();
        holding.proven = 1;
        assert_eq!(contract.payable(1, 14, &PARAMS), 0);
        contract.end_early(End::Forfeited, &mut holding, 3, 15, &PARAMS).unwrap();
        assert_eq!((contract.payable(1, 30, &PARAMS), contract.reserve), (0, 0));
    }

    proptest! {
        #[test]
        fn what_is_paid_and_what_returns_is_what_was_reserved(
            price in 1u128..10_000 * DAT, bytes in 1u64..1 << 40, phase in 0u32..10, accepted in 20u32..1_000, term in 20u32..500,
            missed in proptest::collection::vec(any::<bool>(), 60), ended in proptest::option::of(0u32..500),
        ) {
            let mut contract = Contract::drawn(0, "bob", bytes, price, accepted - 2, &PARAMS);
            contract.take(accepted - 1, &PARAMS).unwrap();
            let locked = payout::budget(1, price, bytes, term, &PARAMS).unwrap();
            let mut request = request(bytes, term, locked);
            let mut holding = contract.accept(0, &mut request, phase, accepted, &PARAMS).unwrap();
            prop_assert_eq!(locked, request.budget + contract.reserve);

            let ends = accepted + term;
            prop_assert_eq!(request.ends, Some(ends));
            let mut paid = 0;
            for now in accepted + 1..ends + 2 * PARAMS.period {
                if ended == Some(now - accepted) && now < contract.wakes_at() {
                    request.budget += contract.end_early(End::Forfeited, &mut holding, phase, now, &PARAMS).unwrap();
                }
                if let Some(number) = clock::open(phase, now, &PARAMS)
                    && holding.is_covered_by(number) && clock::block_of(phase, number, &PARAMS) + 1 == now
                    && !missed[(number - holding.first) as usize]
                {
                    prop_assert!(now < contract.wakes_at());
                    holding.proven += 1;
                    if number % 2 == 0 {
                        let amount = contract.payable(holding.proven, now, &PARAMS);
                        contract.paid += amount;
                        paid += amount;
                    }
                }
            }
            let last = contract.payable(holding.proven, contract.wakes_at(), &PARAMS);
            contract.paid += last;
            paid += last;
            request.budget += contract.reserve - contract.paid;
            prop_assert_eq!(paid + request.budget, locked);
            // Every proven period is paid in full, but for the last one of who gave up: an honest hoster never loses to rounding or
            // to how often it settles.
            let gave_up = contract.outcome() == End::Forfeited;
            let due = payout::due(holding.proven.saturating_sub(gave_up.into()), price, bytes, &PARAMS);
            prop_assert_eq!(paid, due.unwrap());
        }
    }
}
