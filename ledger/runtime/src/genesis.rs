//! The chains that come with the runtime: one for development on one machine, one for two machines or processes.

use alloc::{string::ToString, vec, vec::Vec};

use frame_support::build_struct_json_patch;
use serde_json::Value;
use sp_consensus_babe::AuthorityId as BabeId;
use sp_consensus_grandpa::AuthorityId as GrandpaId;
use sp_genesis_builder::{DEV_RUNTIME_PRESET, LOCAL_TESTNET_RUNTIME_PRESET, PresetId};
use sp_keyring::{Ed25519Keyring, Sr25519Keyring};

use crate::{BabeConfig, Balance, BalancesConfig, DAT, EPOCH, GrandpaConfig, RuntimeGenesisConfig, SudoConfig};

/// What each of the well-known accounts owns in the chains for development.
pub const ENDOWMENT: Balance = 1_000_000 * DAT;

/// The accounts of the chains for development: their keys are public.
const FUNDED: [Sr25519Keyring; 6] = [
    Sr25519Keyring::Alice,
    Sr25519Keyring::Bob,
    Sr25519Keyring::Charlie,
    Sr25519Keyring::Dave,
    Sr25519Keyring::Eve,
    Sr25519Keyring::Ferdie,
];

/// The names that [`preset`] knows.
pub fn preset_names() -> Vec<PresetId> {
    vec![DEV_RUNTIME_PRESET.into(), LOCAL_TESTNET_RUNTIME_PRESET.into()]
}

/// The genesis of that name as JSON, to be laid over the default one.
pub fn preset(name: &str) -> Option<Vec<u8>> {
    let patch = match name {
        DEV_RUNTIME_PRESET => development(&[ALICE]),
        LOCAL_TESTNET_RUNTIME_PRESET => development(&[ALICE, BOB]),
        _ => return None,
    };
    Some(patch.to_string().into_bytes())
}

/// A validator of the chains for development: its key for BABE and its key for GRANDPA.
type Validator = (Sr25519Keyring, Ed25519Keyring);
const ALICE: Validator = (Sr25519Keyring::Alice, Ed25519Keyring::Alice);
const BOB: Validator = (Sr25519Keyring::Bob, Ed25519Keyring::Bob);

/// A chain with a block each second, these validators, money for everybody of [`FUNDED`], and Alice as root.
fn development(validators: &[Validator]) -> Value {
    build_struct_json_patch!(RuntimeGenesisConfig {
        balances: BalancesConfig { balances: FUNDED.map(|who| (who.to_account_id(), ENDOWMENT)).to_vec() },
        babe: BabeConfig {
            authorities: validators.iter().map(|(babe, _)| (BabeId::from(babe.public()), 1)).collect(),
            epoch_config: EPOCH,
        },
        grandpa: GrandpaConfig {
            authorities: validators.iter().map(|(_, grandpa)| (GrandpaId::from(grandpa.public()), 1)).collect(),
        },
        sudo: SudoConfig { key: Some(Sr25519Keyring::Alice.to_account_id()) },
    })
}
