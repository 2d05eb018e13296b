//! A reader that asks for every block, and keeps and checks nothing: what is sent to it is what the sender can send.

use super::{Options, Orders, say};
use anyhow::{Context, Result};
use datdot_hypercore::{
    FeedKey,
    messages::{Handshake, Message, NodeRequest, Request, Sync},
};
use datdot_wire::{
    connection::{self, Options as Connection},
    mux::{ChannelId, Event, Mux},
    noise::Keypair,
};
use serde_json::json;
use std::time::Instant;
use tokio::net::TcpStream;

/// Blocks asked for at a time.
const WINDOW: u64 = 256;

/// Fetches a feed.
pub async fn fetch(options: &Options) -> Result<()> {
    let (key, port): (FeedKey, u16) = (options.get("key")?, options.get("port")?);
    let mut orders = Orders::new();
    orders.ready(json!({})).await?;
    let start = Instant::now();
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let keys = Keypair::from_seed(&[3; 32]);
    let mut peer = connection::connect(stream, &keys, None, &Connection::default()).await?;
    let mut reading = Reading::begin(&key, &peer.handshake_hash)?;
    while reading.length == 0 || reading.received < reading.length {
        while let Some(frame) = reading.mux.take_output() {
            peer.writer.send(&frame).await?;
        }
        peer.writer.flush().await?;
        let frame = peer.reader.next().await?.context("the sender went")?;
        reading.mux.receive(frame);
        while let Some(event) = reading.mux.next()? {
            reading.take(event)?;
        }
    }
    say(
        "done",
        json!({ "seconds": start.elapsed().as_secs_f64(), "bytes": reading.bytes, "blocks": reading.received }),
    );
    orders.end().await
}

struct Reading {
    mux: Mux,
    channel: ChannelId,
    length: u64,
    asked: u64,
    received: u64,
    bytes: u64,
}

impl Reading {
    fn begin(key: &FeedKey, handshake: &[u8; 64]) -> Result<Reading> {
        let mut mux = Mux::new();
        let hello = Handshake { seeks: true, capability: key.capability(true, handshake) };
        let channel = mux.open("hypercore/alpha", &key.discovery().0, &hello.encode())?;
        Ok(Reading { mux, channel, length: 0, asked: 0, received: 0, bytes: 0 })
    }

    fn take(&mut self, event: Event) -> Result<()> {
        let Event::Message { kind, body, .. } = event else { return Ok(()) };
        match Message::decode(kind, &body)? {
            Some(Message::Sync(theirs)) if self.length == 0 && theirs.length > 0 => {
                self.length = theirs.length;
                let (downloading, remote_length) = (true, theirs.length);
                self.send(&Message::Sync(Sync { downloading, remote_length, ..Sync::default() }))?;
                (0..WINDOW).try_for_each(|_| self.ask())
            }
            Some(Message::Data(data)) => {
                self.received += 1;
                self.bytes += data.block.map_or(0, |block| block.value.len() as u64);
                self.ask()
            }
            Some(Message::NoData { .. }) => anyhow::bail!("the sender refuses a block"),
            _ => Ok(()),
        }
    }

    /// Asks for the next block, with as much proof as a reader needs that has all before it.
    fn ask(&mut self) -> Result<()> {
        let index = self.asked;
        if index == self.length {
            return Ok(());
        }
        self.asked += 1;
        let mut nodes = index.trailing_zeros().min(50);
        while index + (1 << nodes) > self.length {
            nodes -= 1;
        }
        let block = Some(NodeRequest { index, nodes: nodes.into() });
        self.send(&Message::Request(Request { id: index + 1, block, ..Request::default() }))
    }

    fn send(&mut self, message: &Message) -> Result<()> {
        let (kind, body) = message.encode();
        Ok(self.mux.send(self.channel, kind, &body)?)
    }
}
