//! What is particular to the ledger's runtime: how its calls, transactions, events and errors are encoded, by its own metadata.

use crate::{
    account::{Account, AccountId},
    call::{Call, Lifetime, Named},
    event::Event,
};
use codec::{Decode, Encode};
use datdot_market::Balance;
use std::ops::Range;
use subxt::{
    ArcMetadata, Metadata, OfflineClient, OfflineClientAtBlock, SubstrateConfig,
    config::{
        DefaultExtrinsicParamsBuilder, Hasher as _,
        substrate::{SpecVersionForRange, SubstrateHeader},
    },
    error::{ArithmeticError, DispatchError, TokenError},
    events::Phase,
    ext::{scale_decode::visitor, scale_encode},
    tx::Payload,
    utils::{AccountId32, H256, MultiSignature},
};

/// The chain's header.
pub(crate) type Header = SubstrateHeader<H256>;

/// A version of the runtime.
pub(crate) struct Runtime {
    pub spec_version: u32,
    client: OfflineClientAtBlock<SubstrateConfig>,
    metadata: ArcMetadata,
}

/// The errors of pallets that mean that an account has not enough money.
const MONEY: [&str; 3] = ["Balances::InsufficientBalance", "Datdot::BudgetAboveBalance", "Datdot::BondAboveBalance"];

/// What became of a transaction in its block.
#[derive(Debug)]
pub(crate) struct Effect {
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
    /// What was paid for it.
    pub fee: Balance,
    /// What it caused.
    pub events: Vec<Event>,
}

/// Why a call in a block had no effect.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The error's name, with its pallet's.
    pub name: String,
    /// What its documentation says.
    pub says: String,
    /// Whether the account had not enough money.
    pub is_money: bool,
}

/// The bytes of an event's fields, by their names.
pub(crate) struct Fields<'a> {
    pub pallet: &'a str,
    pub event: &'a str,
    bytes: &'a [u8],
    places: Vec<(&'a str, Range<usize>)>,
}

/// Something in the metadata or in bytes that was expected to be otherwise.
pub(crate) type Unfit = String;

impl Runtime {
    /// Reads a version of the runtime, and checks that it has the calls that are made here.
    pub fn new(genesis: H256, spec_version: u32, transaction_version: u32, metadata: &[u8]) -> Result<Self, Unfit> {
        let metadata = Metadata::decode_from(metadata).map_err(|error| format!("metadata: {error}"))?.arc();
        let versions = SpecVersionForRange { block_range: 0..u64::MAX, spec_version, transaction_version };
        let config = SubstrateConfig::builder()
            .set_genesis_hash(genesis)
            .set_spec_version_for_block_ranges([versions])
            .set_metadata_for_spec_versions([(spec_version, metadata.clone())])
            .build();
        let client = OfflineClient::new_with_config(config).at_block(0u64).map_err(|error| error.to_string())?;
        let runtime = Self { spec_version, client, metadata };
        for pallet in ["Datdot", "Balances"] {
            runtime.metadata.pallet_by_name(pallet).ok_or_else(|| format!("it has no pallet {pallet}"))?;
        }
        Ok(runtime)
    }

    /// Hash of a header, by which a block is named.
    pub fn block_hash(&self, header: &Header) -> H256 {
        self.client.hasher().hash(&header.encode())
    }

    /// A transaction, signed, with its nonce; `from` is the hash of the block its life begins in.
    pub fn sign(
        &self,
        call: &Call,
        account: &Account,
        nonce: u64,
        lifetime: Lifetime,
        from: H256,
    ) -> Result<Vec<u8>, Unfit> {
        self.transaction(call, account.id(), nonce, lifetime, from, |payload| account.sign(payload))
    }

    /// A transaction as long as the real one, to ask for its fee.
    pub fn unsigned(&self, call: &Call) -> Result<Vec<u8>, Unfit> {
        let lifetime = Lifetime { from: 0, blocks: 32 };
        self.transaction(call, AccountId([0; 32]), 0, lifetime, H256::zero(), |_| [0; 64])
    }

    fn transaction(
        &self,
        call: &Call,
        account: AccountId,
        nonce: u64,
        lifetime: Lifetime,
        from: H256,
        sign: impl Fn(&[u8]) -> [u8; 64],
    ) -> Result<Vec<u8>, Unfit> {
        let call = Encoded::new(call.named(), &self.metadata)?;
        let params = DefaultExtrinsicParamsBuilder::new()
            .nonce(nonce)
            .mortal_from_unchecked(lifetime.blocks.into(), lifetime.from.into(), from)
            .build();
        let unfit = |error: subxt::error::ExtrinsicError| error.to_string();
        let mut transaction = self.client.tx().create_signable_offline(&call, params).map_err(unfit)?;
        let payload = transaction.signer_payload().map_err(unfit)?;
        let signature = MultiSignature::Sr25519(sign(&payload));
        let transaction =
            transaction.sign_with_account_and_signature(&AccountId32::from(account), &signature).map_err(unfit)?;
        Ok(transaction.into_encoded())
    }

    /// What of a block's events is known here, with the transaction that caused it.
    pub fn events(&self, bytes: Vec<u8>) -> Result<Vec<(Option<u32>, Event)>, Unfit> {
        let mut known = Vec::new();
        self.each_event(bytes, |cause, fields| {
            if let Some(event) = Event::read(&fields)? {
                known.push((cause, event));
            }
            Ok(())
        })?;
        Ok(known)
    }

    /// What became of transaction number `index` of a block, by the block's events.
    pub fn effect(&self, bytes: Vec<u8>, index: u32) -> Result<Effect, Unfit> {
        let mut effect = Effect { failure: None, fee: 0, events: Vec::new() };
        self.each_event(bytes, |cause, fields| {
            if cause != Some(index) {
                return Ok(());
            }
            match (fields.pallet, fields.event) {
                ("System", "ExtrinsicFailed") => {
                    effect.failure = Some(self.failure(fields.slice("dispatch_error")?)?);
                }
                ("TransactionPayment", "TransactionFeePaid") => effect.fee = fields.get("actual_fee")?,
                _ => effect.events.extend(Event::read(&fields)?),
            }
            Ok(())
        })?;
        Ok(effect)
    }

    fn failure(&self, bytes: &[u8]) -> Result<Failure, Unfit> {
        let error = DispatchError::decode_from(bytes, self.metadata.clone()).map_err(|error| error.to_string())?;
        let DispatchError::Module(module) = error else {
            let is_money = matches!(
                error,
                DispatchError::Token(TokenError::FundsUnavailable | TokenError::OnlyProvider | TokenError::NotExpendable)
                    // More than all money there is.
                    | DispatchError::Arithmetic(ArithmeticError::Underflow)
            );
            let says = if is_money { "The account can't pay this".into() } else { error.to_string() };
            return Ok(Failure { name: format!("{error:?}"), says, is_money });
        };
        let details = module.details().map_err(|error| error.to_string())?;
        let name = format!("{}::{}", details.pallet.name(), details.variant.name);
        let mut says = details.variant.docs.join(" ").trim().to_owned();
        if !details.variant.fields.is_empty() {
            // Our errors with a field say "this one (counted from 0)" and mean it.
            says.push_str(&format!(" Here: {}.", module.bytes()[2]));
        }
        if says.is_empty() {
            says.clone_from(&name);
        }
        let is_money = MONEY.contains(&name.as_str());
        Ok(Failure { name, says, is_money })
    }

    fn each_event(
        &self,
        bytes: Vec<u8>,
        mut see: impl FnMut(Option<u32>, Fields<'_>) -> Result<(), Unfit>,
    ) -> Result<(), Unfit> {
        let events = self.client.events().from_bytes(bytes);
        let mut seen = 0;
        for event in events.iter() {
            let event = event.map_err(|error| format!("events: {error}"))?;
            let cause = match event.phase() {
                Phase::ApplyExtrinsic(index) => Some(index),
                Phase::Initialization | Phase::Finalization => None,
            };
            let variant = self
                .metadata
                .pallet_by_event_index(event.pallet_index())
                .and_then(|pallet| pallet.event_variant_by_index(event.event_index()))
                .ok_or("an event that its metadata doesn't know")?;
            let (all, mut rest) = (event.field_bytes(), event.field_bytes());
            let mut places = Vec::with_capacity(variant.fields.len());
            for field in &variant.fields {
                let start = all.len() - rest.len();
                visitor::decode_with_visitor(
                    &mut rest,
                    field.ty.id,
                    self.metadata.types(),
                    visitor::IgnoreVisitor::new(),
                )
                .map_err(|error| format!("event {}: {error}", variant.name))?;
                places.push((field.name.as_deref().unwrap_or_default(), start..all.len() - rest.len()));
            }
            see(cause, Fields { pallet: event.pallet_name(), event: event.event_name(), bytes: all, places })?;
            seen += 1;
        }
        // The iterator ends early where the bytes do.
        if seen == events.len() { Ok(()) } else { Err("its events are cut off".into()) }
    }
}

impl Fields<'_> {
    /// The encoded field `name`.
    pub fn slice(&self, name: &str) -> Result<&[u8], Unfit> {
        let place = self.places.iter().find(|(field, _)| *field == name);
        let (_, range) = place.ok_or_else(|| format!("event {}::{} has no {name}", self.pallet, self.event))?;
        Ok(&self.bytes[range.clone()])
    }

    /// The field `name`, which must be of type `T`.
    pub fn get<T: Decode>(&self, name: &str) -> Result<T, Unfit> {
        let mut bytes = self.slice(name)?;
        let value = T::decode(&mut bytes).ok().filter(|_| bytes.is_empty());
        value.ok_or_else(|| format!("{name} of event {}::{} has another type", self.pallet, self.event))
    }
}

/// A call whose arguments are encoded already.
struct Encoded {
    pallet: &'static str,
    call: &'static str,
    arguments: Arguments,
}

struct Arguments(Vec<u8>);

impl Encoded {
    /// Puts the arguments in the order of the runtime.
    fn new(named: Named, metadata: &Metadata) -> Result<Self, Unfit> {
        let Named { pallet, call, arguments } = named;
        let variant = metadata.pallet_by_name(pallet).and_then(|pallet| pallet.call_variant_by_name(call).cloned());
        let fields = variant.ok_or_else(|| format!("it has no call {pallet}::{call}"))?.fields;
        let names: Vec<&str> = fields.iter().map(|field| field.name.as_deref().unwrap_or_default()).collect();
        if names.len() != arguments.len() {
            return Err(format!("its call {pallet}::{call} takes {}", names.join(", ")));
        }
        let mut bytes = Vec::new();
        for name in names {
            let argument = arguments.iter().find(|(argument, _)| *argument == name);
            let (_, encoded) = argument.ok_or_else(|| format!("its call {pallet}::{call} takes {name}"))?;
            bytes.extend_from_slice(encoded);
        }
        Ok(Self { pallet, call, arguments: Arguments(bytes) })
    }
}

impl Payload for Encoded {
    type CallData = Arguments;

    fn pallet_name(&self) -> &str {
        self.pallet
    }

    fn call_name(&self) -> &str {
        self.call
    }

    fn call_data(&self) -> &Arguments {
        &self.arguments
    }
}

impl scale_encode::EncodeAsFields for Arguments {
    fn encode_as_fields_to<R: scale_encode::TypeResolver>(
        &self,
        _: &mut dyn scale_encode::FieldIter<'_, R::TypeId>,
        _: &R,
        out: &mut Vec<u8>,
    ) -> Result<(), scale_encode::Error> {
        out.extend_from_slice(&self.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
