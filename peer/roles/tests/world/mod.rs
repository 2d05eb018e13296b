//! A tiny world around one hoster: a ledger that follows the market's rules, a disk, sources, and chance from a seed.
#![allow(dead_code, reason = "each test file uses its part of the world")]
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use bounded_collections::BoundedVec;
use datdot_market::{
    Block, ContractId, clock,
    contract::{Contract, End, State, remove_holding},
    hoster::{Holdings, Hoster as Standing, Standing as Stands},
    params::{DAT, Params},
    request::Request,
    terms::{Feed, Feeds, Offer, Sources, Terms},
    view::{AccountView, Challenge, Hosting, Work},
};
use datdot_proof::{
    challenge::{self, Dice},
    head::{Head, Manifest, Root, SignedHead},
    proof::Proof,
    tree::tree_hash,
};
use datdot_roles::{
    Call, Checked, Errand, FeedKey, Hoster, Note, Outcome, Trouble,
    hoster::{Action, Input, Policy, Wanted},
};
use ed25519_dalek::{Signer as _, SigningKey};
use std::collections::{BTreeMap, BTreeSet};

pub const PARAMS: Params = Params::dev();
pub const US: u32 = 1;
/// What an offer costs, accepted or not.
pub const FEE: u128 = DAT / 1_000;
const PHASE: Block = 3;

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Sources don't answer.
    pub unreachable: bool,
    /// The sources' bytes have another root.
    pub wrong_root: bool,
    /// Nothing reaches the ledger.
    pub offline: bool,
}

pub struct World {
    pub now: Block,
    pub faults: Faults,
    pub role: Hoster<u32>,
    /// Feeds that are whole on the disk.
    pub disk: BTreeSet<FeedKey>,
    /// Feeds with a damaged block that nobody noticed.
    pub damaged: BTreeSet<FeedKey>,
    /// Everything the role ever asked for.
    pub log: Vec<(Block, Action)>,
    /// How many blocks behind the best one the final one is.
    pub lag: Block,
    /// What the account can spend; each offer costs [`FEE`].
    pub free: u128,
    /// What must stay free besides a bond.
    pub stays: u128,
    pub hoster: Standing,
    pub holdings: Holdings,
    pub contracts: BTreeMap<ContractId, (Contract<u32>, Request<u32>, Feeds)>,
    pub ended: Vec<(ContractId, End)>,
    pub proven: Vec<u32>,
    /// Calls on their way, and whether the role that sent them still lives.
    calls: Vec<(Block, bool, Errand, Call)>,
    works: Vec<(Block, Action)>,
    views: Vec<AccountView<u32>>,
    dice: Dice,
    wanted: Wanted,
}

pub fn offer() -> Offer {
    Offer {
        space: 1 << 40,
        price: DAT,
        max_term: 10_000,
        region: None,
        noise_key: [1; 32],
        addresses: BoundedVec::new(),
    }
}

fn author(name: u8) -> SigningKey {
    SigningKey::from_bytes(&[name; 32])
}

/// The key of a feed.
pub fn key(name: u8) -> FeedKey {
    author(name).verifying_key().to_bytes()
}

pub fn feed(name: u8) -> Feed {
    let (key, manifest) = (key(name), Manifest::Compat);
    let root = Root { hash: [name; 32], size: 1 << 30 };
    let mut head = SignedHead { fork: 0, length: 1, roots: vec![root], manifest, signature: [0; 64] };
    let tree_hash = tree_hash(&head.nodes().collect::<Vec<_>>());
    let message = Head { fork: 0, length: 1, tree_hash }.signable(&key, &manifest);
    head.signature = author(name).sign(&message).to_bytes();
    Feed { key, head, root: [name; 32] }
}

impl World {
    pub fn seeded(seed: u8) -> Self {
        let hoster = Standing {
            offer: offer(),
            standing: Stands::Open,
            phase: PHASE,
            bond: PARAMS.bond,
            used: 0,
            contracts: 0,
            owes_from: 0,
            silent: 0,
            since: 0,
        };
        let mut world = Self {
            now: 100,
            faults: Faults::default(),
            role: Hoster::new(Policy::default(), BTreeSet::new()),
            disk: BTreeSet::new(),
            damaged: BTreeSet::new(),
            log: vec![],
            lag: 3,
            free: 1_000 * DAT,
            stays: 0,
            hoster,
            holdings: Holdings::new(),
            contracts: BTreeMap::new(),
            ended: vec![],
            proven: vec![],
            calls: vec![],
            works: vec![],
            views: vec![],
            dice: Dice::new([seed; 32]),
            wanted: Wanted::AsItIs,
        };
        world.want(Wanted::Offer(offer()));
        world
    }

    pub fn want(&mut self, wanted: Wanted) {
        self.wanted = wanted.clone();
        self.tell(Input::Want(wanted));
    }

    /// Draws the hoster for a new request of these feeds.
    pub fn draw(&mut self, id: ContractId, names: &[u8]) {
        self.draw_feeds(id, names.iter().map(|name| feed(*name)).collect());
    }

    pub fn draw_feeds(&mut self, id: ContractId, feeds: Vec<Feed>) {
        let feeds: Feeds = feeds.try_into().unwrap();
        let terms = Terms { replicas: 1, term: 10_000, max_price: DAT };
        let sources = vec![datdot_market::terms::Source {
            noise_key: [9; 32],
            address: datdot_market::terms::Address::V4([1, 2, 3, 4], 5),
        }];
        let sources: Sources = sources.try_into().unwrap();
        let segments = terms.check(&feeds, &PARAMS).unwrap();
        let request = Request::open(2, terms, segments, sources, u128::MAX, self.now, &PARAMS);
        let contract = Contract::drawn(id, US, request.bytes(), DAT, self.now, &PARAMS);
        self.contracts.insert(id, (contract, request, feeds));
    }

    /// The request is cancelled.
    pub fn cancel(&mut self, id: ContractId) {
        let Some((contract, ..)) = self.contracts.get_mut(&id) else { return };
        let holding = self.holdings.iter_mut().find(|holding| holding.contract == id).unwrap();
        contract.end_early(End::Cancelled, holding, PHASE, self.now, &PARAMS).unwrap();
    }

    /// The peer is killed and started again: all it knows is what is on the disk.
    pub fn restart(&mut self) {
        self.role = Hoster::new(Policy::default(), self.disk.clone());
        self.works.clear();
        self.calls.iter_mut().for_each(|(_, lives, ..)| *lives = false);
        self.tell(Input::Want(self.wanted.clone()));
    }

    pub fn run(&mut self, blocks: Block) {
        for _ in 0..blocks {
            self.step();
        }
    }

    /// One block: calls take effect, the ledger moves on, the role sees it, and its work gets done.
    pub fn step(&mut self) {
        self.now += 1;
        self.lapse();
        let (due, later) = std::mem::take(&mut self.calls).into_iter().partition(|(at, ..)| *at <= self.now);
        self.calls = later;
        for (_, lives, errand, call) in Vec::into_iter(due) {
            let outcome = match self.faults.offline {
                true => Outcome::Lost { why: "offline".into() },
                false => self.apply(call),
            };
            if lives {
                self.tell(Input::Ended(errand, outcome));
            }
        }
        let view = self.view();
        self.views.push(view.clone());
        if !self.faults.offline {
            self.tell(Input::View(view));
            let final_at = self.now - self.lag;
            if let Some(view) = self.views.iter().find(|view| view.at == final_at).cloned() {
                self.tell(Input::Finalized(view));
            }
        }
        while let Some(place) = self.works.iter().position(|(at, _)| *at <= self.now) {
            let (_, action) = self.works.remove(place);
            self.work(action);
        }
    }

    pub fn tell(&mut self, input: Input<u32>) {
        for action in self.role.handle(self.now, input) {
            self.log.push((self.now, action.clone()));
            let delay = self.dice.below(3) as Block;
            match action {
                Action::Submit(errand, call) => {
                    let same = self.calls.iter().filter(|(_, lives, other, _)| *lives && *other == errand).count();
                    assert_eq!(same, 0, "two calls about {errand:?} at a time");
                    self.calls.push((self.now + 1 + delay, true, errand, call));
                }
                Action::StopFetching(id) => {
                    self.works.retain(|(_, work)| !matches!(work, Action::Fetch { contract, .. } if *contract == id));
                }
                Action::Drop(feed) => drop(self.disk.remove(&feed)),
                Action::Tell(_) => {}
                // Proofs are fast, whatever else is going on, and so is looking at what is here.
                Action::Prove { .. } | Action::Check { anew: false, .. } => self.works.push((self.now, action)),
                Action::Fetch { ref feeds, .. } if feeds.iter().all(|feed| self.disk.contains(&feed.key)) => {
                    self.works.push((self.now, action));
                }
                _ => self.works.push((self.now + delay, action)),
            }
        }
    }

    fn work(&mut self, action: Action) {
        let input = match action {
            Action::Fetch { contract, feeds, .. } => {
                let missing = feeds.iter().any(|feed| !self.disk.contains(&feed.key));
                if missing && self.faults.unreachable {
                    let why = Trouble::Unreachable("nobody answers".into());
                    Input::FetchFailed { contract, why, progressed: false }
                } else {
                    self.disk.extend(feeds.iter().map(|feed| feed.key));
                    Input::Fetched(contract)
                }
            }
            Action::Check { contract, segments, .. } => match self.faults.wrong_root {
                true => Input::Checked(contract, Checked::Mismatch(segments[0].0)),
                false => Input::Checked(contract, Checked::Whole),
            },
            Action::Prove { challenge, holdings } => {
                let bad = |feed: &FeedKey| self.damaged.contains(feed) || !self.disk.contains(feed);
                let hit = holdings.iter().find_map(|held| Some((held.contract, *held.feeds.iter().find(|f| bad(f))?)));
                match hit {
                    Some((contract, feed)) => Input::NotProved { challenge, contract, feed, why: "damaged".into() },
                    None => Input::Proved(challenge, Proof { openings: vec![] }),
                }
            }
            Action::Scrub(feed) => {
                if self.damaged.remove(&feed) {
                    self.disk.remove(&feed);
                }
                Input::Scrubbed(feed)
            }
            _ => return,
        };
        self.tell(input);
    }

    /// What the pallet does with a call.
    fn apply(&mut self, call: Call) -> Outcome {
        let now = self.now;
        let refused = |why: &dyn std::fmt::Display| Outcome::Refused { why: why.to_string() };
        let done = Outcome::Included { block: now };
        match call {
            Call::Offer(offer) => {
                self.free -= FEE;
                let missing = PARAMS.bond - self.hoster.bond;
                if self.free < missing + self.stays {
                    return refused(&"the bond can't be locked");
                }
                self.free -= missing;
                self.hoster.bond = PARAMS.bond;
                self.hoster.offer = offer;
                self.hoster.standing = Stands::Open;
                done
            }
            Call::Leave => {
                self.hoster.standing = Stands::Leaving;
                done
            }
            Call::Take(id) => match self.contracts.get_mut(&id).map(|(contract, ..)| contract.take(now, &PARAMS)) {
                Some(Ok(())) => done,
                other => refused(&format!("{other:?}")),
            },
            Call::Pass(id, reason) => match self.contracts.get(&id).map(|(contract, ..)| contract.may_pass(reason)) {
                Some(Ok(())) => {
                    self.contracts.remove(&id);
                    self.ended.push((id, End::Passed(reason)));
                    done
                }
                other => refused(&format!("{other:?}")),
            },
            Call::Accept(id) => {
                let Some((contract, request, _)) = self.contracts.get_mut(&id) else { return refused(&"gone") };
                match contract.accept(id, request, PHASE, now, &PARAMS) {
                    Ok(holding) => {
                        self.hoster.takes_in(&self.holdings, holding.first);
                        self.holdings.try_push(holding).unwrap();
                        done
                    }
                    Err(why) => refused(&why),
                }
            }
            Call::Prove { challenge, .. } => match self.hoster.due(&self.holdings, challenge.number, now, &PARAMS) {
                Ok(()) => {
                    self.hoster.proved(self.holdings.as_mut(), challenge.number);
                    self.proven.push(challenge.number);
                    done
                }
                Err(why) => refused(&why),
            },
            Call::Forfeit(id) => {
                let Some((contract, ..)) = self.contracts.get_mut(&id) else { return refused(&"gone") };
                let holding = self.holdings.iter_mut().find(|holding| holding.contract == id).unwrap();
                match contract.end_early(End::Forfeited, holding, PHASE, now, &PARAMS) {
                    Ok(_) => done,
                    Err(why) => refused(&why),
                }
            }
            Call::Settle(_) | Call::Request { .. } => done,
        }
    }

    /// What the ledger does by itself.
    fn lapse(&mut self) {
        let now = self.now;
        let over: Vec<_> = self
            .contracts
            .iter()
            .filter(|(_, (contract, ..))| contract.wakes_at() <= now)
            .map(|(id, (contract, ..))| {
                let end = match contract.state {
                    State::Drawn { .. } => End::Silent,
                    State::Fetching { .. } => End::TooSlow,
                    State::Hosting { .. } => End::Completed,
                    State::Ending { why, .. } => why,
                };
                (*id, end)
            })
            .collect();
        for (id, end) in over {
            self.contracts.remove(&id);
            remove_holding(&mut self.holdings, id);
            self.ended.push((id, end));
        }
        let Some(number) = clock::latest(PHASE, now - 1 - PARAMS.deadline, &PARAMS) else { return };
        if self.hoster.missed(&self.holdings, number) >= PARAMS.misses_until_lapse {
            for (id, _) in std::mem::take(&mut self.contracts) {
                self.ended.push((id, End::Lapsed));
            }
            self.holdings = Holdings::new();
            self.hoster.lapsed(number);
        }
    }

    pub fn view(&self) -> AccountView<u32> {
        let challenge = clock::open(PHASE, self.now + 1, &PARAMS).map(|number| Challenge {
            number,
            asked: clock::block_of(PHASE, number, &PARAMS),
            by: clock::closes(PHASE, number, &PARAMS),
            seed: challenge::seed(&[0; 32], b"us", number.into()),
        });
        let works = self.contracts.iter().map(|(id, (contract, request, feeds))| Work {
            id: *id,
            contract: contract.clone(),
            feeds: feeds.clone(),
            sources: request.sources.to_vec(),
        });
        let hosting = Hosting {
            hoster: self.hoster.clone(),
            holdings: self.holdings.clone(),
            contracts: works.collect(),
            challenge,
        };
        AccountView {
            at: self.now,
            params: PARAMS,
            free: self.free,
            budgets: 0,
            deposits: 0,
            bond: self.hoster.bond,
            hosting: Some(hosting),
            requests: vec![],
        }
    }

    pub fn is_hosting(&self, id: ContractId) -> bool {
        self.contracts.get(&id).is_some_and(|(contract, ..)| matches!(contract.state, State::Hosting { .. }))
    }

    pub fn submitted(&self, is: impl Fn(&Call) -> bool) -> usize {
        self.log.iter().filter(|(_, action)| matches!(action, Action::Submit(_, call) if is(call))).count()
    }

    /// What the role did, short enough to be read when a test fails.
    pub fn story(&self) -> String {
        let line = |(at, action): &(Block, Action)| match action {
            Action::Submit(_, Call::Prove { challenge, .. }) => format!("{at}: submit proof {}", challenge.number),
            Action::Submit(_, call) => format!("{at}: submit {call:?}"),
            Action::Fetch { contract, .. } => format!("{at}: fetch {contract}"),
            Action::Check { contract, anew, .. } => format!("{at}: check {contract}, anew {anew}"),
            Action::Prove { challenge, .. } => format!("{at}: prove {}", challenge.number),
            Action::Scrub(feed) => format!("{at}: scrub {}", feed[0]),
            Action::Drop(feed) => format!("{at}: drop {}", feed[0]),
            other => format!("{at}: {other:?}"),
        };
        self.log.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    pub fn noted(&self, is: impl Fn(&Note) -> bool) -> bool {
        self.log.iter().any(|(_, action)| matches!(action, Action::Tell(note) if is(note)))
    }
}
