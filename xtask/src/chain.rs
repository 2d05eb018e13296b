//! What a block costs in the wasm runtime: blocks of the running chain are executed again, by the node, from the state before
//! them.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Extrinsics of this size and more are proofs: nothing else is so large in this benchmark.
const PROOF: usize = 4_000;
/// How often a block is executed.
const ROUNDS: usize = 15;

/// Speaks JSON-RPC over HTTP to a node on this machine.
pub struct Rpc {
    url: String,
    agent: ureq::Agent,
}

/// A block as it can be executed again.
pub struct Block {
    parent: String,
    encoded: Vec<u8>,
    /// Proofs in it.
    pub proofs: usize,
}

impl Rpc {
    /// A client for the node at `ws://HOST:PORT`.
    pub fn new(ws: &str) -> Self {
        Self { url: ws.replacen("ws://", "http://", 1), agent: ureq::Agent::new_with_defaults() }
    }

    fn call(&self, method: &str, params: Value) -> Result<Value> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        let request = self.agent.post(&self.url).header("content-type", "application/json");
        let mut response = request.send(body.as_bytes()).with_context(|| format!("{method} got no answer"))?;
        let answer: Value = serde_json::from_str(&response.body_mut().read_to_string()?)?;
        ensure!(answer.get("error").is_none(), "{method}: {}", answer["error"]);
        Ok(answer["result"].clone())
    }

    /// Reads a block by its number.
    pub fn block(&self, number: u32) -> Result<Block> {
        let hash = self.call("chain_getBlockHash", json!([number]))?;
        let block = self.call("chain_getBlock", json!([hash]))?;
        let block = &block["block"];
        let header = &block["header"];
        let text = |value: &Value| value.as_str().map(str::to_owned).context("a node answers with text");
        let bytes = |value: &Value| -> Result<Vec<u8>> { Ok(hex::decode(text(value)?.trim_start_matches("0x"))?) };
        let list = |value: &Value| value.as_array().cloned().context("a node answers with a list");

        let mut encoded = bytes(&header["parentHash"])?;
        encoded.extend(compact(number as usize));
        encoded.extend(bytes(&header["stateRoot"])?);
        encoded.extend(bytes(&header["extrinsicsRoot"])?);
        let mut digest = list(&header["digest"]["logs"])?;
        // The seal is the author's signature over the rest: the runtime executes the block without it.
        digest.pop();
        encoded.extend(compact(digest.len()));
        for item in &digest {
            encoded.extend(bytes(item)?);
        }
        let extrinsics = list(&block["extrinsics"])?.iter().map(bytes).collect::<Result<Vec<_>>>()?;
        encoded.extend(compact(extrinsics.len()));
        encoded.extend(extrinsics.iter().flatten());
        let proofs = extrinsics.iter().filter(|extrinsic| extrinsic.len() >= PROOF).count();
        Ok(Block { parent: text(&header["parentHash"])?, encoded, proofs })
    }

    /// The least time in which the node executes a block in wasm, with the way to the node and back.
    pub fn execute(&self, block: &Block) -> Result<Duration> {
        let params = json!(["Core_execute_block", format!("0x{}", hex::encode(&block.encoded)), block.parent]);
        let mut least = Duration::MAX;
        for _ in 0..ROUNDS {
            let start = Instant::now();
            self.call("state_call", params.clone())?;
            least = least.min(start.elapsed());
        }
        Ok(least)
    }
}

/// SCALE's compact form of a number below 2³⁰.
fn compact(number: usize) -> Vec<u8> {
    match number {
        0..64 => vec![(number as u8) << 2],
        64..16_384 => (((number as u16) << 2) | 1).to_le_bytes().to_vec(),
        _ => (((number as u32) << 2) | 2).to_le_bytes().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_scale_says() {
        assert_eq!(compact(1), [4]);
        assert_eq!(compact(63), [0xfc]);
        assert_eq!(compact(64), [0x01, 0x01]);
        assert_eq!(compact(16_384), [0x02, 0x00, 0x01, 0x00]);
    }
}
