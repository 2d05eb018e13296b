//! Answers to the requests of peers.

use super::{Feed, FeedError};
use crate::{
    leaves::leaves,
    messages::{Data, DataBlock, DataHash, DataSeek, DataUpgrade, Request, UpgradeRequest},
    prove::{ProveError, prove},
};
use bytes::Bytes;
use datdot_proof::tree::Node;
use std::sync::PoisonError;

/// An answer whose block was read, but not checked yet.
pub(crate) struct Draft {
    data: Data,
    /// What the block has to be.
    leaf: Option<Node>,
}

impl Draft {
    /// About so many bytes it will have.
    pub fn bytes(&self) -> usize {
        let Data { block, hash, seek, upgrade, manifest, .. } = &self.data;
        let nodes = [
            block.as_ref().map_or(0, |block| block.nodes.len()),
            hash.as_ref().map_or(0, |hash| hash.nodes.len()),
            seek.as_ref().map_or(0, |seek| seek.nodes.len()),
            upgrade.as_ref().map_or(0, |upgrade| upgrade.nodes.len() + upgrade.additional.len()),
        ];
        let [block, signature, manifest] = [
            block.as_ref().map_or(0, |block| block.value.len()),
            upgrade.as_ref().map_or(0, |upgrade| upgrade.signature.len()),
            manifest.as_ref().map_or(0, Bytes::len),
        ];
        block + signature + manifest + 48 * (1 + nodes.iter().sum::<usize>())
    }

    /// Checks the blocks of several drafts at once. Those that are whole are answers.
    pub fn check(drafts: Vec<Draft>) -> Vec<Option<Data>> {
        let blocks = drafts.iter().filter_map(|draft| draft.data.block.as_ref());
        let mut leaves = leaves(blocks.map(|block| (block.index, &block.value[..]))).into_iter();
        let mut found = |draft: &Draft| draft.data.block.as_ref().and_then(|_| leaves.next());
        drafts.into_iter().map(|draft| (found(&draft) == draft.leaf).then_some(draft.data)).collect()
    }
}

impl Feed {
    /// The answer to a peer's request, with all its parts: what an honest peer of our head says.
    #[doc(hidden)]
    pub fn answer(&self, request: &Request) -> Result<Data, ProveError<FeedError>> {
        self.compose(request, |block| self.read_settled(block))
    }

    /// The same, with the block as it is stored: see [`Draft::check`].
    pub(crate) fn draft(&self, request: &Request) -> Result<Draft, ProveError<FeedError>> {
        let mut leaf = None;
        let data = self.compose(request, |block| {
            let (bytes, wanted) = self.read_unchecked(block)?;
            leaf = Some(wanted);
            Ok(bytes)
        })?;
        Ok(Draft { data, leaf })
    }

    fn compose(
        &self,
        request: &Request,
        read: impl FnOnce(u64) -> Result<Vec<u8>, FeedError>,
    ) -> Result<Data, ProveError<FeedError>> {
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
        let proof = prove(&request, length, |index| self.node_mended(&roots, index)).inspect_err(|error| {
            // The nodes above a block came with it: this one is damaged, and comes again with the block.
            if let (ProveError::Missing { .. }, Some(block), None, None) =
                (error, request.block, request.seek, request.upgrade)
            {
                self.withdraw(block.index);
            }
        })?;
        let nodes = proof.node.unwrap_or_default();
        if let Some(block) = request.block {
            let value = Bytes::from(read(block.index).map_err(ProveError::Read)?);
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
