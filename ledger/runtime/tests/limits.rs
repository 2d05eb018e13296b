//! What the numbers in `config.rs` mean together: fees, slots, and what fits into a block.

use codec::Encode;
use datdot_market::{MAX_CONTRACTS, MAX_FEEDS, params::Params};
use datdot_runtime::{
    Babe, Balances, BlockMillis, MILLI_DAT, Runtime, RuntimeCall, System, TransactionPayment, TxExtension,
    UncheckedExtrinsic, genesis,
};
use frame_support::{
    dispatch::{DispatchClass, GetDispatchInfo},
    traits::Get,
    weights::Weight,
};
use pallet_datdot::{
    LAPSES_PER_BLOCK, MAX_HOSTERS_PER_PHASE, REQUESTS_PER_BLOCK,
    weights::{Estimates, WeightInfo},
};
use sp_keyring::Sr25519Keyring::{Alice, Bob};
use sp_runtime::{BuildStorage, MultiAddress, generic::Era};

/// Draws of a challenge, and so openings of the largest proof.
const OPENINGS: u32 = 16;

/// Runs `test` on a chain with these parameters.
fn on_chain<T>(params: Params, test: impl FnOnce() -> T) -> T {
    let mut genesis = genesis::development();
    genesis.datdot.params = params;
    sp_io::TestExternalities::new(genesis.build_storage().expect("a valid genesis")).execute_with(test)
}

#[test]
fn a_transfer_costs_about_a_thousandth_of_a_token() {
    let fee = on_chain(Params::dev(), || {
        let call = RuntimeCall::Balances(pallet_balances::Call::transfer_keep_alive {
            dest: MultiAddress::Id(Bob.to_account_id()),
            value: 1_000 * MILLI_DAT,
        });
        let info = call.get_dispatch_info();
        let extension: TxExtension = (
            frame_system::CheckNonZeroSender::new(),
            frame_system::CheckSpecVersion::new(),
            frame_system::CheckTxVersion::new(),
            frame_system::CheckGenesis::new(),
            frame_system::CheckEra::from(Era::mortal(64, 0)),
            frame_system::CheckNonce::from(1_000),
            frame_system::CheckWeight::new(),
            pallet_transaction_payment::ChargeTransactionPayment::from(0),
            frame_system::WeightReclaim::new(),
        );
        let signature = Alice.sign(b"of the right length").into();
        let signed = UncheckedExtrinsic::new_signed(call, Alice.to_account_id().into(), signature, extension);
        TransactionPayment::compute_fee(signed.encoded_size() as u32, &info, 0)
    });
    assert!((MILLI_DAT / 2..MILLI_DAT * 2).contains(&fee), "{fee}");
}

#[test]
fn slots_and_the_room_in_blocks_follow_from_the_genesis() {
    for params in [Params::dev(), Params::production()] {
        let (slot, room) = on_chain(params, || {
            assert_eq!(BlockMillis::get(), u64::from(params.block_millis));
            (Babe::slot_duration(), max_block())
        });
        assert_eq!(slot, u64::from(params.block_millis));
        assert_eq!(room.ref_time() / 1_000_000_000, slot / 3);
    }
}

#[test]
fn a_hundred_proofs_fit_into_a_second_and_the_worst_start_of_a_block_into_a_block() {
    on_chain(Params::dev(), || {
        let proof = Estimates::<Runtime>::prove(OPENINGS);
        assert!(max_block().ref_time() / proof.ref_time() >= 100, "{proof}");
        let worst = Estimates::<Runtime>::on_initialize(
            MAX_HOSTERS_PER_PHASE,
            LAPSES_PER_BLOCK * MAX_CONTRACTS,
            REQUESTS_PER_BLOCK,
        );
        assert!(worst.all_lte(max_block()), "{worst}");
    });
}

#[test]
fn each_call_fits_into_a_block() {
    on_chain(Params::dev(), || {
        let weights = <Runtime as frame_system::Config>::BlockWeights::get();
        let normal = weights.get(DispatchClass::Normal).max_extrinsic.expect("limited");
        let operational = weights.get(DispatchClass::Operational).max_extrinsic.expect("limited");
        for (call, weight) in [
            ("request", Estimates::<Runtime>::request(MAX_FEEDS)),
            ("pass", Estimates::<Runtime>::pass()),
            ("accept", Estimates::<Runtime>::accept()),
            ("forfeit", Estimates::<Runtime>::forfeit()),
            ("cancel", Estimates::<Runtime>::cancel()),
        ] {
            assert!(weight.all_lte(normal), "{call}: {weight}");
        }
        assert!(Estimates::<Runtime>::prove(OPENINGS).all_lte(operational));
    });
}

#[test]
fn the_well_known_accounts_have_money_and_the_first_is_root() {
    on_chain(Params::dev(), || {
        for who in [Alice, Bob] {
            assert_eq!(Balances::free_balance(who.to_account_id()), genesis::ENDOWMENT);
        }
        assert_eq!(datdot_runtime::Sudo::key(), Some(Alice.to_account_id()));
        assert_eq!(System::block_number(), 0);
    });
}

fn max_block() -> Weight {
    <Runtime as frame_system::Config>::BlockWeights::get().max_block
}
