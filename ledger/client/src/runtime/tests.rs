//! A runtime made of a few types, in whose metadata names and places are not what the caller assumes.

use super::*;
use datdot_market::contract::Reason;
use scale_info::{
    MetaType, Path, Type, TypeInfo,
    build::{Fields, Variants},
    meta_type,
};
use subxt::ext::frame_metadata::{RuntimeMetadataPrefixed, v15};

#[derive(TypeInfo)]
#[allow(dead_code, non_camel_case_types, reason = "calls are named as in a pallet")]
enum Calls {
    #[codec(index = 4)]
    pass { reason: Reason, contract: u32 },
    #[codec(index = 3)]
    take { contract: u32, later: bool },
}

#[derive(TypeInfo, Encode)]
#[allow(dead_code)]
enum Events {
    #[codec(index = 5)]
    Renamed { request: u32 },
    #[codec(index = 14)]
    Paid { amount: u128, request: u32, more: Vec<u16>, contract: u32, hoster: [u8; 32] },
    #[codec(index = 9)]
    Proven { hoster: u64 },
}

#[derive(TypeInfo)]
#[scale_info(capture_docs = "always")]
#[allow(dead_code)]
enum Errors {
    /// The contract is not waiting
    /// to be taken.
    #[codec(index = 19)]
    NotDrawn,
    /// The head of this feed (counted from 0) is not signed.
    #[codec(index = 14)]
    HeadNotSigned(u8),
    #[codec(index = 17)]
    BudgetAboveBalance,
}

#[derive(TypeInfo, Encode)]
enum SystemEvents {
    #[codec(index = 1)]
    ExtrinsicFailed { dispatch_error: DispatchErrorOnWire },
}

#[derive(TypeInfo, Encode)]
enum PaymentEvents {
    #[codec(index = 0)]
    TransactionFeePaid { who: [u8; 32], actual_fee: u128, tip: u128 },
}

#[derive(Encode)]
enum DispatchErrorOnWire {
    #[codec(index = 3)]
    Module(ModuleError),
}

#[derive(TypeInfo, Encode)]
struct ModuleError {
    index: u8,
    error: [u8; 4],
}

// By hand, since its path is what it is found by.
impl TypeInfo for DispatchErrorOnWire {
    type Identity = Self;

    fn type_info() -> Type {
        let module = || Fields::unnamed().field(|field| field.ty::<ModuleError>());
        let path = Path::from_segments(["sp_runtime", "DispatchError"]).unwrap();
        Type::builder()
            .path(path)
            .variant(Variants::new().variant("Module", |variant| variant.index(3).fields(module())))
    }
}

const DATDOT: u8 = 7;

fn pallet(name: &'static str, index: u8, calls: Option<MetaType>, event: Option<MetaType>) -> v15::PalletMetadata {
    v15::PalletMetadata {
        name,
        storage: None,
        calls: calls.map(|ty| v15::PalletCallMetadata { ty }),
        event: event.map(|ty| v15::PalletEventMetadata { ty }),
        constants: vec![],
        error: (index == DATDOT).then(|| v15::PalletErrorMetadata { ty: meta_type::<Errors>() }),
        index,
        docs: vec![],
    }
}

fn runtime() -> Runtime {
    let nothing = meta_type::<()>();
    let pallets = vec![
        pallet("System", 0, None, Some(meta_type::<SystemEvents>())),
        pallet("Balances", 4, None, None),
        pallet("TransactionPayment", 5, None, Some(meta_type::<PaymentEvents>())),
        pallet("Datdot", DATDOT, Some(meta_type::<Calls>()), Some(meta_type::<Events>())),
    ];
    let extrinsic = v15::ExtrinsicMetadata {
        version: 4,
        address_ty: nothing,
        call_ty: nothing,
        signature_ty: nothing,
        extra_ty: nothing,
        signed_extensions: vec![],
    };
    let enums = v15::OuterEnums { call_enum_ty: nothing, event_enum_ty: nothing, error_enum_ty: nothing };
    let custom = v15::CustomMetadata { map: Default::default() };
    let metadata = v15::RuntimeMetadataV15::new(pallets, extrinsic, nothing, vec![], enums, custom);
    let bytes = RuntimeMetadataPrefixed::from(metadata).encode();
    Runtime::new(H256::zero(), 1, 1, &bytes).unwrap()
}

/// An event record: its phase, pallet, event, and no topics.
fn record(index: u32, pallet: u8, event: impl Encode) -> Vec<u8> {
    (0u8, index, pallet, event, Vec::<H256>::new()).encode()
}

fn block(records: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = codec::Compact(records.len() as u32).encode();
    bytes.extend(records.concat());
    bytes
}

fn failed(error: [u8; 4]) -> Vec<u8> {
    let dispatch_error = DispatchErrorOnWire::Module(ModuleError { index: DATDOT, error });
    record(2, 0, SystemEvents::ExtrinsicFailed { dispatch_error })
}

fn paid() -> Events {
    Events::Paid { amount: 5, request: 6, more: vec![1, 2], contract: 7, hoster: [8; 32] }
}

#[test]
fn arguments_go_where_the_runtime_wants_them() {
    let runtime = runtime();
    let encoded = Encoded::new(Call::Pass(9, Reason::NoRoom).named(), &runtime.metadata).unwrap();
    assert_eq!(encoded.arguments.0, (Reason::NoRoom, 9u32).encode());
}

#[test]
fn a_call_that_became_another_is_not_sent() {
    let runtime = runtime();
    let error = |call: Call| Encoded::new(call.named(), &runtime.metadata).err().unwrap();
    assert_eq!(error(Call::Take(9)), "its call Datdot::take takes contract, later");
    assert_eq!(error(Call::Leave), "it has no call Datdot::leave");
}

#[test]
fn events_are_read_by_the_names_of_their_fields_and_others_are_passed_over() {
    let events = block(&[record(1, DATDOT, Events::Renamed { request: 1 }), record(2, DATDOT, paid())]);
    let paid = Event::Paid { request: 6, contract: 7, hoster: AccountId([8; 32]), amount: 5 };
    assert_eq!(runtime().events(events), Ok(vec![(Some(2), paid)]));
}

#[test]
fn an_event_of_another_form_is_an_error_and_never_a_wrong_value() {
    let runtime = runtime();
    let events = block(&[record(1, DATDOT, Events::Proven { hoster: 1 })]);
    assert_eq!(runtime.events(events), Err("hoster of event Datdot::Proven has another type".into()));
    let whole = block(&[record(2, DATDOT, paid())]);
    for length in 1..whole.len() - 1 {
        assert!(runtime.events(whole[..length].to_vec()).is_err(), "{length} bytes");
    }
}

#[test]
fn a_transaction_s_effect_is_its_own_fee_and_its_own_events() {
    let fee =
        |index, actual_fee| record(index, 5, PaymentEvents::TransactionFeePaid { who: [1; 32], actual_fee, tip: 0 });
    let events = block(&[fee(1, 10), record(2, DATDOT, paid()), fee(2, 20), record(3, DATDOT, paid())]);
    let effect = runtime().effect(events, 2).unwrap();
    assert_eq!((effect.fee, effect.events.len()), (20, 1));
    assert!(effect.failure.is_none());
}

#[test]
fn a_failure_says_what_the_pallet_s_documentation_says() {
    let runtime = runtime();
    let failure = |error| runtime.effect(block(&[failed(error)]), 2).unwrap().failure.unwrap();
    let not_drawn = failure([19, 0, 0, 0]);
    assert_eq!((not_drawn.name.as_str(), not_drawn.is_money), ("Datdot::NotDrawn", false));
    assert_eq!(not_drawn.says, "The contract is not waiting to be taken.");
    assert_eq!(failure([14, 3, 0, 0]).says, "The head of this feed (counted from 0) is not signed. Here: 3.");
    assert!(failure([17, 0, 0, 0]).is_money);
}
