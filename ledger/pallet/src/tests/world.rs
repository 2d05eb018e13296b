//! The mock runtime, and people who do what the market's duties ask of them.

use crate::{
    self as pallet_datdot, BlockRandomness, Contracts, Error, Event, HoldReason, HoldingsOf, Hosters, Requests, hosting,
};
use codec::Encode;
use datdot_market::{
    Balance, Block, ContractId, RequestId, clock,
    contract::State,
    duty::{Duty, duties},
    params::{DAT, Params},
    terms::{Address, Feed, Feeds, Offer, Source as Peer, Sources, Terms},
};
use datdot_proof::{
    head::{Head, Manifest, Root, SignedHead},
    opening::Source,
    outboard,
    proof::Proof,
    tree::{Node, Roots},
};
use ed25519_dalek::{Signer, SigningKey};
use frame_support::{
    derive_impl,
    dispatch::DispatchResultWithPostInfo,
    traits::{
        ConstU128, Hooks,
        fungible::{Inspect, InspectHold},
    },
};
use sp_io::hashing::blake2_256;
use sp_runtime::{BuildStorage, DispatchError, DispatchResult};

frame_support::construct_runtime!(
    pub enum Test {
        System: frame_system,
        Balances: pallet_balances,
        Datdot: pallet_datdot,
    }
);

#[derive_impl(frame_system::config_preludes::TestDefaultConfig)]
impl frame_system::Config for Test {
    type Block = frame_system::mocking::MockBlock<Test>;
    type AccountData = pallet_balances::AccountData<Balance>;
}

#[derive_impl(pallet_balances::config_preludes::TestDefaultConfig)]
impl pallet_balances::Config for Test {
    type AccountStore = System;
    type Balance = Balance;
    type ExistentialDeposit = ConstU128<EXISTENTIAL_DEPOSIT>;
}

impl pallet_datdot::Config for Test {
    type Currency = Balances;
    type RuntimeHoldReason = RuntimeHoldReason;
    type Randomness = Hashes;
    type WeightInfo = crate::weights::Estimates<Test>;
}

pub struct Hashes;

impl BlockRandomness for Hashes {
    fn vrf_output() -> Option<[u8; 32]> {
        Some(blake2_256(&(b"vrf", System::block_number()).encode()))
    }
}

pub type Who = u64;
pub const PARAMS: Params = Params::dev();
pub const EXISTENTIAL_DEPOSIT: Balance = DAT / 1_000;
pub const ALICE: Who = 1;
pub const BOB: Who = 2;
/// What everybody has in the beginning.
pub const RICH: Balance = 1_000_000 * DAT;
/// Per GiB·day: so much that a period of a few KiB costs something.
pub const PRICE: Balance = 1_000 * DAT;
pub const SPACE: u64 = 1 << 30;

/// Hoster number `n`.
pub const fn hoster(n: u64) -> Who {
    100 + n
}

/// Runs a test in a fresh chain at block 1, and checks the invariants at its end.
pub fn run(test: impl FnOnce()) {
    let mut storage = frame_system::GenesisConfig::<Test>::default().build_storage().unwrap();
    let people = [ALICE, BOB].into_iter().chain((0..100).map(hoster));
    let balances = people.map(|who| (who, RICH)).collect();
    pallet_balances::GenesisConfig::<Test> { balances, ..Default::default() }.assimilate_storage(&mut storage).unwrap();
    pallet_datdot::GenesisConfig::<Test>::default().assimilate_storage(&mut storage).unwrap();
    sp_io::TestExternalities::new(storage).execute_with(|| {
        System::set_block_number(1);
        Datdot::on_initialize(1);
        let issuance = Balances::total_issuance();
        test();
        Datdot::do_try_state().unwrap();
        assert_eq!(Balances::total_issuance(), issuance);
    });
}

pub fn now() -> Block {
    System::block_number() as Block
}

/// Ends this block and begins the next one.
pub fn step() {
    end_block();
    begin_block();
}

/// What a block does after its transactions: from now on its randomness is known.
pub fn end_block() {
    Datdot::do_try_state().unwrap();
    Datdot::on_finalize(System::block_number());
}

pub fn begin_block() {
    System::set_block_number(System::block_number() + 1);
    Datdot::on_initialize(System::block_number());
    Datdot::do_try_state().unwrap();
}

pub fn go_to(block: Block) {
    while now() < block {
        step();
    }
}

/// All events of the pallet since the last call.
pub fn news() -> Vec<Event<Test>> {
    let events = System::events();
    System::reset_events();
    let ours = |record: frame_system::EventRecord<RuntimeEvent, _>| match record.event {
        RuntimeEvent::Datdot(event) => Some(event),
        _ => None,
    };
    events.into_iter().filter_map(ours).collect()
}

/// A feed with everything that its author, its sponsor and its hosters have of it.
#[derive(Clone)]
pub struct Data {
    pub feed: Feed,
    pub content: Vec<u8>,
    pub outboard: Vec<u8>,
}

impl Data {
    /// A feed of so many bytes that nobody else has, in blocks of 4 KiB.
    pub fn new(seed: u8, bytes: usize) -> Self {
        let content: Vec<u8> = (0u64..).flat_map(|i| blake2_256(&(seed, i).encode())).take(bytes).collect();
        let author = SigningKey::from_bytes(&[seed; 32]);
        let manifest = Manifest::v1(author.verifying_key().to_bytes());
        let key = manifest.feed_key().unwrap();
        let mut roots = Roots::new();
        for (block, content) in content.chunks(4096).enumerate() {
            roots.push(Node::leaf(block as u64, content)).unwrap();
        }
        let head = Head { fork: 0, length: roots.length(), tree_hash: roots.tree_hash() };
        let signature = author.sign(&head.signable(&key, &manifest)).to_bytes();
        let roots = roots.nodes().iter().map(|node| Root { hash: node.hash, size: node.size }).collect();
        let head = SignedHead { fork: 0, length: head.length, roots, manifest, signature };
        let (root, outboard) = outboard::build(&content).unwrap();
        Self { feed: Feed { key, head, root }, content, outboard }
    }
}

impl Source for &Data {
    type Error = &'static str;

    fn content(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Self::Error> {
        let end = offset as usize + buffer.len();
        buffer.copy_from_slice(self.content.get(offset as usize..end).ok_or("past the end")?);
        Ok(())
    }

    fn outboard(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Self::Error> {
        let end = offset as usize + buffer.len();
        buffer.copy_from_slice(self.outboard.get(offset as usize..end).ok_or("past the end")?);
        Ok(())
    }
}

pub fn an_offer() -> Offer {
    Offer {
        space: SPACE,
        price: PRICE,
        max_term: 100_000,
        region: None,
        noise_key: [7; 32],
        addresses: vec![Address::V4([192, 0, 2, 1], 4000)].try_into().unwrap(),
    }
}

pub fn post(who: Who, offer: Offer) -> DispatchResult {
    Datdot::offer(RuntimeOrigin::signed(who), offer)
}

/// The first `n` hosters post their offers.
pub fn offers(n: u64) {
    for n in 0..n {
        post(hoster(n), Offer { noise_key: [n as u8; 32], ..an_offer() }).unwrap();
    }
}

pub fn terms(replicas: u32, term: Block) -> Terms {
    Terms { replicas, term, max_price: PRICE }
}

pub fn feeds(data: &[&Data]) -> Feeds {
    data.iter().map(|data| data.feed.clone()).collect::<Vec<_>>().try_into().unwrap()
}

pub fn sources() -> Sources {
    vec![Peer { noise_key: [9; 32], address: Address::V4([192, 0, 2, 9], 4000) }].try_into().unwrap()
}

pub fn ask(sponsor: Who, data: &[&Data], terms: Terms) -> DispatchResult {
    Datdot::request(RuntimeOrigin::signed(sponsor), feeds(data), terms, sources())
}

/// Alice opens a request.
pub fn request(data: &[&Data], replicas: u32, term: Block) -> RequestId {
    ask(ALICE, data, terms(replicas, term)).unwrap();
    crate::NextRequest::<Test>::get() - 1
}

/// Makes the proof that a hoster owes, from what it has.
pub fn proof_of(who: Who, has: &[&Data]) -> Option<(u32, Proof)> {
    let hosting = Datdot::account_view(&who).hosting?;
    let challenge = hosting.challenge?;
    let positions = hosting::positions(&hosting.holdings, challenge.number, &challenge.seed);
    let open = |at: &datdot_proof::challenge::Position| {
        has.iter().copied().find(|data| data.feed.root == at.segment.root).ok_or("not kept")
    };
    Some((challenge.number, Proof::make(&positions, open).ok()?))
}

/// The proof that is due in this very block, if one is.
pub fn proof_of_now(who: Who, has: &[&Data]) -> Option<(u32, Proof)> {
    let one = Hosters::<Test>::get(who)?;
    let number = clock::open(one.phase, now(), &PARAMS)?;
    let holdings = HoldingsOf::<Test>::get(who);
    one.due(&holdings, number, now(), &PARAMS).ok()?;
    let seed = Datdot::challenge_seed(&who, clock::block_of(one.phase, number, &PARAMS), number)?;
    let positions = hosting::positions(&holdings, number, &seed);
    let open = |at: &datdot_proof::challenge::Position| {
        has.iter().copied().find(|data| data.feed.root == at.segment.root).ok_or("not kept")
    };
    Some((number, Proof::make(&positions, open).unwrap()))
}

pub fn prove(who: Who, number: u32, proof: Proof) -> DispatchResultWithPostInfo {
    Datdot::prove(RuntimeOrigin::signed(who), number, proof)
}

/// A hoster takes and accepts all that it was drawn for. For proofs see [`live`].
pub fn tend(who: Who) {
    for duty in duties(&Datdot::account_view(&who)) {
        match duty {
            Duty::Answer { contract, .. } => match take(who, contract) {
                Ok(()) => {}
                Err(why) => assert_eq!(why, Error::<Test>::RequestClosing.into()),
            },
            Duty::Fetch { contract, .. } => match accept(who, contract) {
                Ok(()) => {}
                Err(why) => assert!(
                    [Error::<Test>::NothingLeft.into(), Error::<Test>::RequestClosing.into()].contains(&why),
                    "{why:?}"
                ),
            },
            Duty::Keep { .. } | Duty::Prove(_) | Duty::Seed { .. } => {}
        }
    }
}

/// Proofs that hosters owe and can give after this block.
pub fn owed(hosters: &[Who], has: &[&Data]) -> Vec<(Who, u32, Proof)> {
    let owes = |who: &&Who| duties(&Datdot::account_view(who)).iter().any(|duty| matches!(duty, Duty::Prove(_)));
    let proof = |who: &Who| proof_of(*who, has).map(|(number, proof)| (*who, number, proof));
    hosters.iter().filter(owes).filter_map(proof).collect()
}

/// Lets blocks pass in which these hosters do all that they owe.
pub fn live(blocks: Block, hosters: &[Who], has: &[&Data]) {
    for _ in 0..blocks {
        end_block();
        let proofs = owed(hosters, has);
        begin_block();
        for (who, number, proof) in proofs {
            prove(who, number, proof).unwrap();
        }
        for who in hosters {
            tend(*who);
        }
        Datdot::do_try_state().unwrap();
    }
}

/// The first `n` hosters, posted, and one request of Alice's that all of them host.
pub fn hosted(data: &[&Data], n: u64, term: Block) -> (RequestId, Vec<Who>) {
    offers(n);
    let id = request(data, n as u32, term);
    let hosters: Vec<_> = (0..n).map(hoster).collect();
    live(PARAMS.match_after + 1, &hosters, data);
    assert_eq!(hosting_of(id).len(), n as usize);
    (id, hosters)
}

/// The contracts of a request that host.
pub fn hosting_of(id: RequestId) -> Vec<(ContractId, Who)> {
    let contracts = Datdot::contracts_in(&Requests::<Test>::get(id).unwrap());
    let hosts = |state| matches!(state, State::Hosting { .. });
    contracts
        .into_iter()
        .filter(|(_, contract)| hosts(contract.state))
        .map(|(id, contract)| (id, contract.hoster))
        .collect()
}

/// The contract that a hoster has, which is its only one.
pub fn contract_of(who: Who) -> ContractId {
    let contracts: Vec<_> = Contracts::<Test>::iter().filter(|(_, contract)| contract.hoster == who).collect();
    assert_eq!(contracts.len(), 1);
    contracts[0].0
}

pub fn take(who: Who, contract: ContractId) -> DispatchResult {
    Datdot::take(RuntimeOrigin::signed(who), contract)
}

pub fn accept(who: Who, contract: ContractId) -> DispatchResult {
    Datdot::accept(RuntimeOrigin::signed(who), contract)
}

pub fn bond(who: Who) -> Balance {
    Balances::balance_on_hold(&HoldReason::Bond.into(), &who)
}

pub fn budgets(who: Who) -> Balance {
    Balances::balance_on_hold(&HoldReason::Budget.into(), &who)
}

/// All that an account has, held or free.
pub fn wealth(who: Who) -> Balance {
    Balances::total_balance(&who)
}

pub fn phase_of(who: Who) -> Block {
    Hosters::<Test>::get(who).unwrap().phase
}

pub fn refused(result: DispatchResult, why: Error<Test>) {
    assert_eq!(result, Err(DispatchError::from(why)));
}
