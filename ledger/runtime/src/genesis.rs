//! The chains that come with the runtime: one for development on one machine, one for two machines or processes.

#![warn(missing_docs)]

use alloc::{vec, vec::Vec};

use datdot_market::params::Params;
use sp_consensus_babe::AuthorityId as BabeId;
use sp_consensus_grandpa::AuthorityId as GrandpaId;
use sp_genesis_builder::{DEV_RUNTIME_PRESET, LOCAL_TESTNET_RUNTIME_PRESET, PresetId};
use sp_keyring::{Ed25519Keyring, Sr25519Keyring};

use crate::{
    BabeConfig, Balance, BalancesConfig, DAT, DatdotConfig, EPOCH, GrandpaConfig, RuntimeGenesisConfig, SudoConfig,
};

/// What each of the well-known accounts owns in the chains for development.
pub const ENDOWMENT: Balance = 1_000_000 * DAT;

/// The accounts of the chains for development. Everybody knows their keys.
const FUNDED: [Sr25519Keyring; 6] = [
    Sr25519Keyring::Alice,
    Sr25519Keyring::Bob,
    Sr25519Keyring::Charlie,
    Sr25519Keyring::Dave,
    Sr25519Keyring::Eve,
    Sr25519Keyring::Ferdie,
];

/// A validator of the chains for development: its key for BABE and its key for GRANDPA.
type Validator = (Sr25519Keyring, Ed25519Keyring);
const ALICE: Validator = (Sr25519Keyring::Alice, Ed25519Keyring::Alice);
const BOB: Validator = (Sr25519Keyring::Bob, Ed25519Keyring::Bob);

/// The chain on which Alice makes all the blocks, one a second.
pub fn development() -> RuntimeGenesisConfig {
    chain_of(&[ALICE])
}

/// The chain on which Alice and Bob make the blocks, one a second.
pub fn local() -> RuntimeGenesisConfig {
    chain_of(&[ALICE, BOB])
}

/// The names that [`preset`] knows.
pub fn preset_names() -> Vec<PresetId> {
    vec![DEV_RUNTIME_PRESET.into(), LOCAL_TESTNET_RUNTIME_PRESET.into()]
}

/// The genesis of that name as JSON.
pub fn preset(name: &str) -> Option<Vec<u8>> {
    let genesis = match name {
        DEV_RUNTIME_PRESET => development(),
        LOCAL_TESTNET_RUNTIME_PRESET => local(),
        _ => return None,
    };
    Some(serde_json::to_vec(&genesis).expect("plain structs, whose maps have strings as keys, have a JSON form"))
}

/// A chain with these validators, money for everybody of [`FUNDED`], and Alice as root.
fn chain_of(validators: &[Validator]) -> RuntimeGenesisConfig {
    RuntimeGenesisConfig {
        balances: BalancesConfig {
            balances: FUNDED.map(|who| (who.to_account_id(), ENDOWMENT)).to_vec(),
            ..Default::default()
        },
        babe: BabeConfig {
            authorities: validators.iter().map(|(babe, _)| (BabeId::from(babe.public()), 1)).collect(),
            epoch_config: EPOCH,
            ..Default::default()
        },
        grandpa: GrandpaConfig {
            authorities: validators.iter().map(|(_, grandpa)| (GrandpaId::from(grandpa.public()), 1)).collect(),
            ..Default::default()
        },
        sudo: SudoConfig { key: Some(Sr25519Keyring::Alice.to_account_id()) },
        datdot: DatdotConfig { params: Params::dev(), ..Default::default() },
        ..Default::default()
    }
}
