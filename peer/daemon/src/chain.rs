//! Which chain the folder's state is about, and how far it was seen.
//!
//! With that a daemon starts, and serves what it has, while its ledger is away. And it decides nothing by what a node shows that has
//! yet to catch up: to such a node nobody's contracts exist, and their data would be dropped.

use crate::{files, journal::scale};
use datdot_api::Key;
use datdot_ledger::{Chain, Error, Ledger};
use datdot_market::{Block, params::Params};
use serde::{Deserialize, Serialize};
use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::timeout;

/// What is known of it, in the daemon's folder.
const FILE: &str = "ledger.json";
/// How long a start waits for a ledger that was seen before.
const PATIENCE: Duration = Duration::from_secs(5);
/// Blocks after which it is written down again how far the chain is.
const NOTED_EVERY: Block = 64;

/// A chain that was seen, or none yet.
#[derive(Debug)]
pub(crate) struct Known {
    path: PathBuf,
    note: Option<Note>,
    /// The newest block that was final.
    finalized: Block,
}

/// What is written down.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    name: String,
    genesis: Key,
    #[serde(with = "scale")]
    params: Params,
    /// A block that was final, not long before the newest of them.
    finalized: Block,
}

impl Known {
    /// What the folder says. A file that can't be understood is as good as none.
    pub fn in_dir(dir: &Path) -> io::Result<Self> {
        let path = dir.join(FILE);
        let note: Option<Note> = files::read(&path)?.and_then(|content| serde_json::from_slice(&content).ok());
        let finalized = note.as_ref().map_or(0, |note| note.finalized);
        Ok(Self { path, note, finalized })
    }

    /// Connects to the ledger. One that was seen before need not answer now.
    pub async fn connect(&self, url: &str) -> Result<Ledger, Error> {
        let Some(note) = &self.note else { return Ledger::connect(url).await };
        match timeout(PATIENCE, Ledger::connect(url)).await {
            Err(_) | Ok(Err(Error::Unreachable { .. })) => Ok(Ledger::expect(url, note.chain())),
            Ok(connected) => connected,
        }
    }

    /// The name of the chain that was seen before, if `chain` is another one: by that nobody's contracts are what they were.
    pub fn other_than(&self, chain: &Chain) -> Option<&str> {
        self.note.as_ref().filter(|note| note.genesis.0 != chain.genesis).map(|note| note.name.as_str())
    }

    /// Notes the chain that is followed; of another one nothing was seen.
    pub fn is(&mut self, chain: &Chain) -> io::Result<()> {
        if self.note.as_ref().is_some_and(|note| note.chain() == *chain) {
            return Ok(());
        }
        if self.other_than(chain).is_some() {
            self.finalized = 0;
        }
        let Chain { name, genesis, params } = chain.clone();
        self.note = Some(Note { name, genesis: Key(genesis), params, finalized: self.finalized });
        self.write()
    }

    /// Notes that a block is final.
    pub fn is_final(&mut self, block: Block) -> io::Result<()> {
        self.finalized = self.finalized.max(block);
        match &mut self.note {
            Some(note) if self.finalized >= note.finalized.saturating_add(NOTED_EVERY) => {
                note.finalized = self.finalized;
                self.write()
            }
            _ => Ok(()),
        }
    }

    /// The newest block that was final.
    pub fn finalized(&self) -> Block {
        self.finalized
    }

    fn write(&self) -> io::Result<()> {
        files::replace(&self.path, &serde_json::to_vec_pretty(&self.note)?)
    }
}

impl Note {
    fn chain(&self) -> Chain {
        Chain { name: self.name.clone(), genesis: self.genesis.0, params: self.params }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_a_chain_was_seen_is_known_after_a_restart_and_not_of_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let chain = Chain { name: "dev".into(), genesis: [1; 32], params: Params::dev() };
        let mut known = Known::in_dir(dir.path()).unwrap();
        known.is(&chain).unwrap();
        known.is_final(NOTED_EVERY).unwrap();
        known.is_final(NOTED_EVERY + 1).unwrap();
        assert_eq!(known.finalized(), NOTED_EVERY + 1);

        let mut known = Known::in_dir(dir.path()).unwrap();
        assert_eq!(known.finalized(), NOTED_EVERY, "it isn't written with each block");
        known.is(&chain).unwrap();
        known.is_final(3).unwrap();
        assert_eq!(known.finalized(), NOTED_EVERY, "a node that catches up takes nothing back");
        known.is(&Chain { name: "renamed".into(), ..chain.clone() }).unwrap();
        assert_eq!(known.finalized(), NOTED_EVERY, "it is the same");
        let other = Chain { genesis: [2; 32], ..chain };
        assert_eq!(known.other_than(&other), Some("renamed"));
        known.is(&other).unwrap();
        assert_eq!((known.finalized(), known.other_than(&other)), (0, None));
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(Known::in_dir(dir.path()).unwrap().note.is_none());
    }

    #[tokio::test]
    async fn only_a_ledger_that_was_seen_may_be_away() {
        let dir = tempfile::tempdir().unwrap();
        let mut known = Known::in_dir(dir.path()).unwrap();
        let nowhere = "ws://127.0.0.1:1";
        assert!(matches!(known.connect(nowhere).await, Err(Error::Unreachable { .. })));
        known.is(&Chain { name: "dev".into(), genesis: [1; 32], params: Params::dev() }).unwrap();
        let ledger = known.connect(nowhere).await.unwrap();
        assert_eq!((ledger.params(), ledger.is_up(), ledger.seen()), (Params::dev(), false, None));
        assert!(matches!(known.connect("nonsense").await, Err(Error::BadUrl(_))));
    }
}
