//! What is held, paid and returned.
//!
//! All money stays with its owner, on hold: a sponsor's budgets and reserves as [`HoldReason::Budget`], a hoster's bond as
//! [`HoldReason::Bond`]. The records (`Request::budget`, `Contract::reserve` less `paid`, `Hoster::bond`) say what it is held for
//! and sum to it. A request's deposit ([`HoldReason::Deposit`]) follows from its terms.

use crate::{Config, ContractOf, Error, Event, HoldReason, Pallet};
use datdot_market::{Balance, ContractId, hoster::Hoster, params::Params};
use frame_support::{
    ensure,
    traits::{
        fungible::{InspectHold, MutateHold},
        tokens::{Fortitude, Precision, Restriction},
    },
};
use sp_runtime::DispatchError;

impl<T: Config> Pallet<T> {
    /// Holds a request's budget and its deposit.
    pub(crate) fn hold_for_request(sponsor: &T::AccountId, budget: Balance, deposit: Balance) -> Result<(), Error<T>> {
        Self::hold(HoldReason::Budget, sponsor, budget)
            .and_then(|()| Self::hold(HoldReason::Deposit, sponsor, deposit))
            .map_err(|_| Error::BudgetAboveBalance)
    }

    /// Brings a hoster's bond up to what an offer needs.
    pub(crate) fn top_up_bond(who: &T::AccountId, hoster: &mut Hoster, params: &Params) -> Result<(), Error<T>> {
        let missing = params.bond.saturating_sub(hoster.bond);
        Self::hold(HoldReason::Bond, who, missing).map_err(|_| Error::BondAboveBalance)?;
        hoster.bond = hoster.bond.saturating_add(missing);
        Ok(())
    }

    /// Pays what a contract has earned and not got. `false` if the hoster's account can't take it: then it stays held, and owed.
    pub(crate) fn pay(
        id: ContractId,
        contract: &mut ContractOf<T>,
        proven: u32,
        sponsor: &T::AccountId,
        params: &Params,
    ) -> bool {
        let amount = contract.payable(proven, Self::now(), params);
        if amount == 0 {
            return true;
        }
        let (request, hoster) = (contract.request, contract.hoster.clone());
        let delivered = Self::transfer(HoldReason::Budget, sponsor, &hoster, amount).is_ok();
        if delivered {
            contract.paid = contract.paid.saturating_add(amount);
            Self::deposit_event(Event::Paid { request, contract: id, hoster, amount });
        } else {
            Self::deposit_event(Event::PayOwed { request, contract: id, hoster, amount });
        }
        delivered
    }

    /// Moves the penalty for one contract from a hoster's bond to a sponsor's budget. Returns what left the bond and what
    /// reached the budget: the same, unless the sponsor's account can't hold it; then the sponsor has it free. Never more than what
    /// was `at_stake`, so that nobody lives from the misses of others.
    pub(crate) fn penalise(
        who: &T::AccountId,
        hoster: &mut Hoster,
        sponsor: &T::AccountId,
        at_stake: Balance,
        params: &Params,
    ) -> (Balance, Balance) {
        let penalty = params.penalty.min(at_stake).min(hoster.bond);
        if penalty == 0 || Self::transfer(HoldReason::Bond, who, sponsor, penalty).is_err() {
            return (0, 0);
        }
        hoster.bond = hoster.bond.saturating_sub(penalty);
        let held = if Self::hold(HoldReason::Budget, sponsor, penalty).is_ok() { penalty } else { 0 };
        (penalty, held)
    }

    /// Frees what is left of a budget.
    pub(crate) fn free_budget(sponsor: &T::AccountId, amount: Balance) -> Balance {
        Self::free(HoldReason::Budget, sponsor, amount)
    }

    /// Frees a deposit.
    pub(crate) fn free_deposit(sponsor: &T::AccountId, amount: Balance) {
        Self::free(HoldReason::Deposit, sponsor, amount);
    }

    /// Frees a bond.
    pub(crate) fn free_bond(who: &T::AccountId, amount: Balance) -> Balance {
        Self::free(HoldReason::Bond, who, amount)
    }

    /// What is held of an account for a reason.
    pub(crate) fn held(reason: HoldReason, who: &T::AccountId) -> Balance {
        T::Currency::balance_on_hold(&reason.into(), who)
    }

    fn hold(reason: HoldReason, who: &T::AccountId, amount: Balance) -> Result<(), DispatchError> {
        if amount == 0 {
            return Ok(());
        }
        T::Currency::hold(&reason.into(), who, amount)
    }

    fn free(reason: HoldReason, who: &T::AccountId, amount: Balance) -> Balance {
        if amount == 0 {
            return 0;
        }
        let freed = T::Currency::release(&reason.into(), who, amount, Precision::BestEffort).unwrap_or(0);
        if freed != amount {
            log::error!(target: "datdot", "of {amount} held of an account only {freed} could be released");
        }
        freed
    }

    fn transfer(
        reason: HoldReason,
        from: &T::AccountId,
        to: &T::AccountId,
        amount: Balance,
    ) -> Result<(), DispatchError> {
        // Forced: money in escrow must not be blocked by a freeze that its owner can cause.
        let moved = T::Currency::transfer_on_hold(
            &reason.into(),
            from,
            to,
            amount,
            Precision::Exact,
            Restriction::Free,
            Fortitude::Force,
        )?;
        ensure!(moved == amount, DispatchError::Unavailable);
        Ok(())
    }
}
