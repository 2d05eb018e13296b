//! Which ledger a node belongs to: the chains for development, or one that is described in a file.

use std::{convert::Infallible, net::Ipv4Addr, path::PathBuf, str::FromStr};

use datdot_runtime::{DECIMALS, RuntimeGenesisConfig, SS58_PREFIX, SYMBOL, genesis};
use sc_service::{ChainSpec, ChainType, GenericChainSpec, Properties};
use sp_core::storage::well_known_keys;
use sp_runtime::BuildStorage;

use crate::Error;

/// Which ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chain {
    /// On one machine: Alice makes all the blocks, one a second.
    Dev,
    /// On one machine, in two processes: Alice and Bob make the blocks, one a second, and both must be there to
    /// finalize them.
    Local,
    /// As the chain specification in this file says.
    Spec(PathBuf),
}

/// `dev`, `local`, or a file.
impl FromStr for Chain {
    type Err = Infallible;

    fn from_str(name: &str) -> Result<Self, Infallible> {
        Ok(match name {
            "dev" => Self::Dev,
            "local" => Self::Local,
            file => Self::Spec(file.into()),
        })
    }
}

impl Chain {
    /// The specification, as JSON in which a person can change validators, balances and settings of the genesis.
    pub fn to_json(&self) -> Result<String, Error> {
        self.spec()?.as_json(false).map_err(|cause| Error::Service(sc_service::Error::Other(cause)))
    }

    /// The specification. Its genesis is not built yet: that takes a compilation of the runtime.
    fn spec(&self) -> Result<GenericChainSpec, Error> {
        match self {
            Self::Dev => builtin("DatDot Development", "datdot_dev", ChainType::Development, &genesis::development()),
            Self::Local => builtin("DatDot Local", "datdot_local", ChainType::Local, &genesis::local()),
            Self::Spec(file) => GenericChainSpec::from_json_file(file.clone())
                .map_err(|cause| Error::Spec { file: file.clone(), cause }),
        }
    }

    /// The specification, with a genesis that the native runtime has built if it is one of ours, in no time.
    pub(crate) fn spec_to_run(&self) -> Result<GenericChainSpec, Error> {
        let mut spec = self.spec()?;
        let genesis = match self {
            Self::Dev => genesis::development(),
            Self::Local => genesis::local(),
            Self::Spec(_) => return Ok(spec),
        };
        let mut storage = genesis.build_storage().map_err(sc_service::Error::Other)?;
        storage.top.insert(well_known_keys::CODE.to_vec(), code()?.to_vec());
        spec.set_storage(storage);
        Ok(spec)
    }

    /// The address to listen on for other nodes: chains for development never leave the machine.
    pub(crate) fn listens_on(&self) -> Ipv4Addr {
        match self {
            Self::Dev | Self::Local => Ipv4Addr::LOCALHOST,
            Self::Spec(_) => Ipv4Addr::UNSPECIFIED,
        }
    }
}

fn code() -> Result<&'static [u8], Error> {
    datdot_runtime::WASM_BINARY.ok_or(Error::NoRuntime)
}

fn builtin(name: &str, id: &str, kind: ChainType, genesis: &RuntimeGenesisConfig) -> Result<GenericChainSpec, Error> {
    let genesis =
        serde_json::to_value(genesis).expect("plain structs, whose maps have strings as keys, have a JSON form");
    let properties = Properties::from_iter([
        ("tokenSymbol".into(), SYMBOL.into()),
        ("tokenDecimals".into(), DECIMALS.into()),
        ("ss58Format".into(), SS58_PREFIX.into()),
    ]);
    Ok(GenericChainSpec::builder(code()?, None)
        .with_name(name)
        .with_id(id)
        .with_protocol_id("datdot")
        .with_chain_type(kind)
        .with_properties(properties)
        .with_genesis_config(genesis)
        .build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn native_and_wasm_runtime_build_the_same_genesis() {
        for chain in [Chain::Dev, Chain::Local] {
            let native = chain.spec_to_run().map(|spec| spec.build_storage().expect("built"));
            let wasm = chain.spec().expect("built in").build_storage().expect("the runtime accepts its own preset");
            assert_eq!(native.expect("built in").top, wasm.top);
        }
    }

    #[test]
    fn an_exported_chain_can_be_read_back() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let file = dir.path().join("chain.json");
        std::fs::write(&file, Chain::Local.to_json().expect("built in")).expect("writable");
        let spec = Chain::Spec(file).spec().expect("our own format");
        assert_eq!(spec.id(), "datdot_local");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Chain::Spec("no/such/chain.json".into()).spec().err().expect("no such file");
        assert!(error.to_string().contains("no/such/chain.json"), "{error}");
    }
}
