//! Answers to the requests of peers.

use super::{Feed, FeedError};
use crate::{
    messages::{Data, DataBlock, DataHash, DataSeek, DataUpgrade, Request, UpgradeRequest},
    prove::{ProveError, prove},
};
use bytes::Bytes;
use std::sync::PoisonError;

impl Feed {
    /// The answer to a peer's request, with all its parts: what an honest peer of our head says.
    #[doc(hidden)]
    pub fn answer(&self, request: &Request) -> Result<Data, ProveError<FeedError>> {
        // While history is rewritten nodes are gone before the head is: this waits for the new one.
        let _settled = self.0.clearing.read().unwrap_or_else(PoisonError::into_inner);
        let (fork, length, signature) = self.signed().unwrap_or_default();
        if request.fork != fork {
            return Err(ProveError::Read(FeedError::NoHead));
        }
        let authors = self.authors();
        let manifest = authors.as_ref().and_then(|authors| authors.to_wire().cloned()).filter(|_| request.manifest);
        let mut data = Data { id: request.id, fork, manifest, ..Data::default() };
        if request.block.is_none() && request.hash.is_none() && request.upgrade.is_none() {
            return Ok(data);
        }
        if let Some(block) = request.block
            && block.index < length
            && !self.has(block.index)
        {
            return Err(ProveError::Read(FeedError::NotHere { block: block.index }));
        }
        let mut request = *request;
        let prologue = authors.and_then(|authors| authors.prologue).map_or(0, |prologue| prologue.length);
        // The prologue is proven as a whole or not at all.
        request.upgrade = request.upgrade.map(|upgrade| match upgrade.start < prologue {
            true => UpgradeRequest { start: 0, length: prologue },
            false => upgrade,
        });
        let roots = self.lock().roots.clone();
        let proof = prove(&request, length, |index| self.node_under(&roots, index)).inspect_err(|error| {
            // The nodes above a block came with it: this one is damaged, and comes again with the block.
            if let (ProveError::Missing { .. }, Some(block), None, None) =
                (error, request.block, request.seek, request.upgrade)
            {
                self.withdraw(block.index);
            }
        })?;
        let nodes = proof.node.unwrap_or_default();
        if let Some(block) = request.block {
            let value = Bytes::from(self.read_settled(block.index).map_err(ProveError::Read)?);
            data.block = Some(DataBlock { index: block.index, value, nodes });
        } else if let Some(hash) = request.hash {
            data.hash = Some(DataHash { index: hash.index, nodes });
        }
        data.seek = request.seek.zip(proof.seek).map(|(seek, nodes)| DataSeek { bytes: seek.bytes, nodes });
        data.upgrade = request.upgrade.zip(proof.upgrade).map(|(upgrade, (nodes, additional))| DataUpgrade {
            start: upgrade.start,
            length: upgrade.length,
            nodes,
            additional,
            signature,
        });
        Ok(data)
    }
}
