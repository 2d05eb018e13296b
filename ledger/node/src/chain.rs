//! Which ledger a node belongs to: the chains for development, or one that is described in a file.

use std::{convert::Infallible, net::Ipv4Addr, path::PathBuf, str::FromStr};

use datdot_runtime::{DECIMALS, SS58_PREFIX, SYMBOL, genesis};
use sc_service::{ChainType, GenericChainSpec, Properties};

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

    pub(crate) fn spec(&self) -> Result<GenericChainSpec, Error> {
        match self {
            Self::Dev => builtin("DatDot Development", "datdot_dev", ChainType::Development, "development"),
            Self::Local => builtin("DatDot Local", "datdot_local", ChainType::Local, "local_testnet"),
            Self::Spec(file) => GenericChainSpec::from_json_file(file.clone())
                .map_err(|cause| Error::Spec { file: file.clone(), cause }),
        }
    }

    /// The address to listen on for other nodes: chains for development never leave the machine.
    pub(crate) fn listens_on(&self) -> Ipv4Addr {
        match self {
            Self::Dev | Self::Local => Ipv4Addr::LOCALHOST,
            Self::Spec(_) => Ipv4Addr::UNSPECIFIED,
        }
    }
}

fn builtin(name: &str, id: &str, kind: ChainType, preset: &str) -> Result<GenericChainSpec, Error> {
    let patch = genesis::preset(preset).expect("both names that `spec` passes are presets: a test builds them");
    let patch = serde_json::from_slice(&patch).expect("the runtime has just written it as JSON");
    let properties = Properties::from_iter([
        ("tokenSymbol".into(), SYMBOL.into()),
        ("tokenDecimals".into(), DECIMALS.into()),
        ("ss58Format".into(), SS58_PREFIX.into()),
    ]);
    Ok(GenericChainSpec::builder(datdot_runtime::WASM_BINARY.ok_or(Error::NoRuntime)?, None)
        .with_name(name)
        .with_id(id)
        .with_protocol_id("datdot")
        .with_chain_type(kind)
        .with_properties(properties)
        .with_genesis_config_patch(patch)
        .build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_chains_for_development_have_a_genesis() {
        for chain in [Chain::Dev, Chain::Local] {
            let spec = chain.spec().expect("built in");
            let storage = sp_runtime::BuildStorage::build_storage(&spec).expect("the runtime accepts its own preset");
            assert!(storage.top.contains_key(b":code".as_slice()));
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
