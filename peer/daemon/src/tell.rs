//! What the ledger says happened, as the daemon's story.

use datdot_api::{Amount, Event, Key};
use datdot_ledger::{AccountId, AccountView, Event as OnLedger};
use datdot_market::{
    Block, ContractId, RequestId, contract::State, params::Dat, payout, request::Why, view::RequestView,
};
use std::collections::BTreeMap;

/// The events of some blocks, and what the views before and after them show: for an account as hoster and as sponsor.
pub(crate) fn events(
    blocks: &[(Block, OnLedger)],
    us: &AccountId,
    before: Option<&AccountView>,
    after: &AccountView,
) -> Vec<Event> {
    let mut told: Vec<_> = blocks.iter().filter_map(|(block, event)| event_of(*block, event, us, after)).collect();
    count_up(&mut told);
    told.extend(earned(before, after));
    told
}

/// Several hosters may have accepted within these blocks; each is told with the count at its turn.
fn count_up(told: &mut [Event]) {
    let mut later = BTreeMap::<RequestId, u32>::new();
    for event in told.iter_mut().rev() {
        if let Event::HosterAccepted { request, hosted, .. } = event {
            let later = later.entry(*request).or_default();
            *hosted = hosted.saturating_sub(*later);
            *later += 1;
        }
    }
}

fn event_of(block: Block, event: &OnLedger, us: &AccountId, view: &AccountView) -> Option<Event> {
    Some(match event {
        OnLedger::OfferPosted { hoster, space, price, .. } if hoster == us => {
            Event::OfferPosted { space: *space, price: Amount(*price) }
        }
        OnLedger::OfferClosing { hoster, .. } if hoster == us => Event::OfferWithdrawn,
        OnLedger::OfferWithdrawn { hoster, .. } if hoster == us => Event::OfferWithdrawn,
        OnLedger::RequestOpened { request, sponsor, bytes, budget, .. } if sponsor == us => {
            let found = request_in(view, *request);
            Event::RequestOpened {
                request: *request,
                key: Key(found.and_then(|found| found.keys.first().copied()).unwrap_or_default()),
                bytes: *bytes,
                replicas: found.map_or(0, |found| found.request.terms.replicas),
                max_price: Amount(found.map_or(0, |found| found.request.terms.max_price)),
                budget: Amount(*budget),
            }
        }
        OnLedger::Waiting { request, why, next, .. } if request_in(view, *request).is_some() => {
            Event::RequestWaits { request: *request, why: why_waiting(*why).into(), next: *next }
        }
        OnLedger::Drawn { request, contract, hoster, .. } if hoster != us => {
            Event::HosterDrawn { request: *request, contract: *contract, hoster: hoster.to_string() }
        }
        OnLedger::Taken { contract, hoster, .. } if hoster == us => Event::Taken { contract: *contract },
        OnLedger::Accepted { contract, hoster, reserve, .. } if hoster == us => {
            Event::Accepted { contract: *contract, reserve: Amount(*reserve) }
        }
        OnLedger::Accepted { request, contract, hoster, .. } => {
            let found = request_in(view, *request)?;
            Event::HosterAccepted {
                request: *request,
                contract: *contract,
                hoster: hoster.to_string(),
                hosted: hosted(found),
                of: found.request.terms.replicas,
            }
        }
        OnLedger::Proven { hoster, number, .. } if hoster == us => Event::ProofOnLedger { number: *number, block },
        OnLedger::ChallengeMissed { hoster, number, missed } if hoster == us => {
            Event::ProofMissed { number: *number, missed: *missed }
        }
        OnLedger::Forfeited { contract, hoster, .. } if hoster == us => Event::Forfeited { contract: *contract },
        OnLedger::ContractEnded { contract, hoster, .. } if hoster == us => {
            Event::ContractEnded { contract: *contract }
        }
        OnLedger::ContractEnded { request, contract, hoster, .. } => {
            Event::HosterLost { request: *request, contract: *contract, hoster: hoster.to_string() }
        }
        OnLedger::Paid { contract, hoster, amount, .. } if hoster == us => {
            Event::Paid { contract: *contract, amount: Amount(*amount) }
        }
        OnLedger::PayOwed { contract, hoster, amount, .. } if hoster == us => Event::Trouble {
            what: format!(
                "{} earned with contract {contract} can't be paid: the account can't take it now",
                Dat(*amount)
            ),
        },
        OnLedger::RequestClosed { request, sponsor, .. } if sponsor == us => Event::RequestClosed { request: *request },
        _ => return None,
    })
}

/// What proofs have earned since the view before.
fn earned(before: Option<&AccountView>, after: &AccountView) -> Vec<Event> {
    let Some(before) = before else { return vec![] };
    let was = earnings(before);
    let newly = |(contract, total): (ContractId, u128)| {
        let amount = total.saturating_sub(was.get(&contract).copied().unwrap_or(0));
        (amount > 0).then_some(Event::Earned { contract, amount: Amount(amount), total: Amount(total) })
    };
    earnings(after).into_iter().filter_map(newly).collect()
}

/// What each contract of a hoster has earned so far, paid or not.
pub(crate) fn earnings(view: &AccountView) -> BTreeMap<ContractId, u128> {
    let Some(hosting) = &view.hosting else { return BTreeMap::new() };
    let earned = |holding: &datdot_market::hoster::Holding| {
        let contract = &hosting.contracts.iter().find(|work| work.id == holding.contract)?.contract;
        let due = payout::due(holding.proven, contract.price, contract.bytes, &view.params)?;
        Some((holding.contract, due.min(contract.reserve)))
    };
    hosting.holdings.iter().filter_map(earned).collect()
}

fn request_in(view: &AccountView, id: RequestId) -> Option<&RequestView<AccountId>> {
    view.requests.iter().find(|request| request.id == id)
}

/// Hosters of a request that have its data.
pub(crate) fn hosted(view: &RequestView<AccountId>) -> u32 {
    view.contracts.iter().filter(|contract| matches!(contract.contract.state, State::Hosting { .. })).count() as u32
}

/// Hosters of a request that were drawn or are fetching.
pub(crate) fn coming(view: &RequestView<AccountId>) -> u32 {
    let coming = |state| matches!(state, State::Drawn { .. } | State::Fetching { .. });
    view.contracts.iter().filter(|contract| coming(contract.contract.state)).count() as u32
}

/// Why replicas are vacant, and what can be done about it.
pub(crate) fn why_waiting(why: Why) -> &'static str {
    match why {
        Why::Draw => "the draw of hosters, some blocks after the request so that nobody knows it before",
        Why::NoOffers => "nobody offers space; it goes on when somebody does",
        Why::PriceTooLow => "every offer asks for more than the highest price of the request",
        Why::TermTooLong => "no offer is for so long a term",
        Why::NoSpace => "no offer has so much free space",
        Why::NoOtherHosters => "all hosters whose offers fit have this request already or passed it lately",
        Why::SourceUnreachable => {
            "hosters could not reach any source: keep a daemon with the data running and reachable"
        }
        Why::BudgetSpent => "the budget doesn't pay for one more period",
    }
}

/// A line in the log for what somebody who runs a daemon wants to read there.
pub(crate) fn log(event: &Event) {
    match event {
        Event::ProofMissed { number, missed } => {
            tracing::warn!(target: "hoster", number, missed, "a challenge went unanswered: nothing is earned for it");
        }
        Event::Trouble { what } => tracing::warn!(target: "daemon", "{what}"),
        Event::Fetching { .. } => {}
        event => tracing::info!(target: "daemon", "{event:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosters_that_accept_together_are_counted_one_by_one() {
        let accepted = |contract| Event::HosterAccepted { request: 1, contract, hoster: "A".into(), hosted: 3, of: 3 };
        let mut told = [accepted(0), accepted(1), accepted(2)];
        count_up(&mut told);
        let count = |event: &Event| if let Event::HosterAccepted { hosted, .. } = event { *hosted } else { 0 };
        assert_eq!(told.each_ref().map(count), [1, 2, 3]);
    }
}
