//! What a hoster does as things stand: whatever its duties ask for and nobody does yet.

use super::{Action, Attempt, Covered, Data, Hoster, Stage, Trouble, Wanted, find, missed};
use crate::{Call, errand::Errand, note::Note};
use datdot_market::{
    Balance, Block, ContractId, clock,
    contract::{Reason, State},
    duty::{Duty, duties},
    hoster::{Standing, covered},
    view::{AccountView, Challenge, Hosting, Work},
};
use datdot_proof::head::Software;

/// Blocks before a challenge in which a contract is given up whose data is still being healed.
const LAST_MOMENT: Block = 3;

impl<Account: Clone> Hoster<Account> {
    /// Does whatever is due as things stand.
    pub(super) fn act(&mut self, now: Block, actions: &mut Vec<Action>) {
        let Some(view) = self.view.take() else { return };
        self.keep_offer(&view, actions);
        if let Some(hosting) = &view.hosting {
            for duty in duties(&view) {
                let work = |contract| find(hosting, contract);
                match duty {
                    Duty::Answer { contract, by } if view.at < by => {
                        work(contract).into_iter().for_each(|work| self.answer(work, view.at, actions));
                    }
                    Duty::Fetch { contract, by } if view.at < by => {
                        work(contract).into_iter().for_each(|work| self.fetch(work, &view, now, actions));
                    }
                    Duty::Keep { contract } => {
                        work(contract).into_iter().for_each(|work| self.keep(work, hosting, &view, now, actions));
                    }
                    Duty::Prove(challenge) => self.prove(challenge, hosting, view.at, actions),
                    _ => {}
                }
            }
        }
        self.view = Some(view);
    }

    fn submit(&mut self, errand: Errand, call: Call, at: Block, actions: &mut Vec<Action>) -> bool {
        let may = self.errands.may_start(errand, at);
        if may {
            self.errands.start(errand);
            actions.push(Action::Submit(errand, call));
        }
        may
    }

    fn keep_offer(&mut self, view: &AccountView<Account>, actions: &mut Vec<Action>) {
        let hoster = view.hosting.as_ref().map(|hosting| &hosting.hoster);
        let call = match (&self.wanted, hoster) {
            (Wanted::Offer(offer), _) if self.wanted.is_to_be_posted(hoster) => {
                if bond_missing(view).is_some() || self.is_refused_as_it_is(view.free) {
                    return;
                }
                Some(Call::Offer(offer.clone()))
            }
            (Wanted::Stop, Some(hoster)) if hoster.standing != Standing::Leaving => Some(Call::Leave),
            _ => None,
        };
        let reopens =
            matches!((&call, hoster), (Some(Call::Offer(_)), Some(hoster)) if hoster.standing == Standing::Away);
        if let Some(call) = call
            && self.submit(Errand::Offer, call, view.at, actions)
        {
            self.tried_with = Some(view.free);
            if reopens {
                actions.push(Action::Tell(Note::Reopening));
            }
        }
    }

    /// Whether the offer that is wanted was refused when there was as much money as now, or more. Each refusal costs a fee.
    fn is_refused_as_it_is(&self, free: Balance) -> bool {
        self.errands.failure(Errand::Offer).is_some_and(|failure| failure.refused)
            && self.tried_with.is_some_and(|then| free <= then)
    }

    fn answer(&mut self, work: &Work<Account>, at: Block, actions: &mut Vec<Action>) {
        let here = work.feeds.iter().all(|feed| self.stored.contains(&feed.key));
        let full = self.room.is_some_and(|room| room < work.contract.bytes) && !here;
        if self.wanted == Wanted::Stop {
            self.pass(work.id, Reason::Unwilling, "no new contracts are wanted".into(), at, actions);
        } else if let Some(why) = unfit(work) {
            self.pass(work.id, Reason::Unwilling, why, at, actions);
        } else if full {
            let (bytes, room) = (work.contract.bytes, self.room.unwrap_or(0));
            let why = format!("it needs {bytes} bytes, the disk has {room} left");
            self.pass(work.id, Reason::NoRoom, why, at, actions);
        } else {
            self.submit(Errand::Contract(work.id), Call::Take(work.id), at, actions);
        }
    }

    fn pass(&mut self, contract: ContractId, reason: Reason, why: String, at: Block, actions: &mut Vec<Action>) {
        if self.submit(Errand::Contract(contract), Call::Pass(contract, reason), at, actions) {
            actions.push(Action::Tell(Note::Passing { contract, reason, why }));
        }
    }

    fn fetch(&mut self, work: &Work<Account>, view: &AccountView<Account>, now: Block, actions: &mut Vec<Action>) {
        let (id, at) = (work.id, view.at);
        match self.data.get(&id) {
            Some(Data::Held) => {
                self.submit(Errand::Contract(id), Call::Accept(id), at, actions);
            }
            Some(Data::WrongRoot(_)) => {
                let why = "the data hashes to another root than the sponsor's".into();
                self.pass(id, Reason::RootMismatch, why, at, actions);
            }
            Some(Data::Waiting { why, tries, .. }) => {
                let reason = match why {
                    Trouble::Unreachable(_) if *tries < self.policy.unreachable_after => None,
                    Trouble::Unreachable(_) => Some(Reason::Unreachable),
                    Trouble::NoRoom(_) => Some(Reason::NoRoom),
                    Trouble::Unfit(_) => Some(Reason::Unwilling),
                };
                let why = why.to_string();
                match reason {
                    Some(reason) => self.pass(id, reason, why, at, actions),
                    None => self.have(work, now, actions),
                }
            }
            _ => self.have(work, now, actions),
        }
    }

    /// Sees to it that a contract's data gets here, if nobody does so already.
    fn have(&mut self, work: &Work<Account>, now: Block, actions: &mut Vec<Action>) {
        let (tries, healing) = match self.data.get(&work.id) {
            None => (0, false),
            Some(Data::Waiting { next, tries, healing, .. }) if now >= *next => (*tries, *healing),
            _ => return,
        };
        self.data.insert(work.id, Data::Fetching { tries, healing });
        self.stored.extend(work.feeds.iter().map(|feed| feed.key));
        actions.push(fetch_action(work));
    }

    fn keep(
        &mut self,
        work: &Work<Account>,
        hosting: &Hosting<Account>,
        view: &AccountView<Account>,
        now: Block,
        actions: &mut Vec<Action>,
    ) {
        self.have(work, now, actions);
        let hosts = matches!(work.contract.state, State::Hosting { .. });
        if let Some(Data::WrongRoot(feed)) = self.data.get(&work.id) {
            // It had the right one when it was accepted: the disk is at fault.
            self.scrub(*feed, actions);
        }
        // What is held is frozen from a challenge on, so a forfeit has to be in a block before the next one.
        let (phase, params) = (hosting.hoster.phase, &view.params);
        let next = clock::block_of(phase, clock::next(phase, view.at, params), params);
        let hurry = next.saturating_sub(view.at) <= LAST_MOMENT;
        let lost = match self.data.get(&work.id) {
            Some(Data::Waiting { tries, healing, .. } | Data::Fetching { tries, healing }) => {
                *tries > 0 || (*healing && hurry)
            }
            Some(Data::Scrubbing) => hurry,
            _ => false,
        };
        let limit = self.policy.forfeit_after.unwrap_or(view.params.misses_until_lapse.saturating_sub(1)).max(1);
        let missed = missed(hosting, view.at, &view.params).map_or(0, |(_, missed)| missed);
        let proven = hosting.holdings.iter().find(|holding| holding.contract == work.id).map_or(0, |held| held.proven);
        let payable = work.contract.payable(proven, view.at, &view.params);
        if hosts && lost && missed >= limit {
            if self.submit(Errand::Contract(work.id), Call::Forfeit(work.id), view.at, actions) {
                actions.push(Action::Tell(Note::Forfeiting { contract: work.id }));
            }
        } else if hosts && payable >= self.policy.settle_from.max(1) {
            self.submit(Errand::Contract(work.id), Call::Settle(work.id), view.at, actions);
        }
    }

    fn prove(&mut self, challenge: Challenge, hosting: &Hosting<Account>, at: Block, actions: &mut Vec<Action>) {
        if at >= challenge.by {
            return;
        }
        let holdings: Vec<_> = covered(&hosting.holdings, challenge.number)
            .map(|holding| Covered {
                contract: holding.contract,
                weight: holding.weight,
                feeds: find(hosting, holding.contract)
                    .map(|work| work.feeds.iter().map(|feed| feed.key).collect())
                    .unwrap_or_default(),
                segments: holding.segments.to_vec(),
            })
            .collect();
        let whole = holdings.iter().all(|held| self.data.get(&held.contract) == Some(&Data::Held));
        let tries = match self.attempt.as_ref().filter(|attempt| attempt.challenge == challenge) {
            Some(Attempt { stage: Stage::Making, .. }) => return,
            Some(Attempt { stage: Stage::Made(proof), .. }) => {
                let call = Call::Prove { challenge, proof: proof.clone() };
                self.submit(Errand::Proof(challenge.number), call, at, actions);
                return;
            }
            Some(Attempt { stage: Stage::Withheld, tries, .. })
                if !whole || *tries >= self.policy.tries_a_challenge =>
            {
                return;
            }
            Some(attempt) => attempt.tries,
            // After a start the data is still being looked at: it is done within the window, or it can't be proven.
            None if holdings.iter().any(|held| self.is_settling(held.contract)) => return,
            None => 0,
        };
        self.attempt = Some(Attempt { challenge, tries: tries + 1, stage: Stage::Making });
        actions.push(Action::Prove { challenge, holdings });
    }

    fn is_settling(&self, contract: ContractId) -> bool {
        matches!(
            self.data.get(&contract),
            None | Some(Data::Fetching { tries: 0, healing: false } | Data::Checking { healing: false })
        )
    }
}

/// What is missing of the bond, and what is free, if that is less.
pub(super) fn bond_missing<Account>(view: &AccountView<Account>) -> Option<(Balance, Balance)> {
    let missing = view.params.bond.saturating_sub(view.bond);
    (missing > view.free).then_some((missing, view.free))
}

/// Why peers would not accept a contract's heads. They are stricter about signatures than the ledger, whose host function
/// takes more than the libsodium of JavaScript: a head that only the ledger accepts could be fetched from nobody.
fn unfit<Account>(work: &Work<Account>) -> Option<String> {
    work.feeds.iter().find_map(|feed| {
        let error = feed.head.verify::<Software>(&feed.key).err()?;
        let key: String = feed.key.iter().map(|byte| format!("{byte:02x}")).collect();
        Some(format!("no peer would accept the head of feed {key}: {error}"))
    })
}

fn fetch_action<Account>(work: &Work<Account>) -> Action {
    Action::Fetch { contract: work.id, feeds: work.feeds.to_vec(), sources: work.sources.clone() }
}
