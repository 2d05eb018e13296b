//! What a remote makes us do in one step. A connection that is given more goes on in its next step, after others had a turn:
//! a few bytes may cost a thousand times as much as others.

use crate::{
    blocks::PAGE,
    messages::{Data, Message, Wanted},
    offers::MAX_PAGES,
};

/// What may be done in one step, about in microseconds: 16 ms.
pub const STEP: u64 = 1 << 14;
/// To find out what our head proves to a remote takes as many nodes of the tree as its length has roots.
pub const SYNC: u64 = 40;
/// The nodes of a proof.
pub const REQUEST: u64 = 40;
/// To look the feed up, and to check and prove that its key is known.
pub const OPEN: u64 = 20;

/// Of a message that is taken, what [`SYNC`] and [`REQUEST`] don't count.
pub fn of(message: &Message) -> u64 {
    match message {
        Message::Sync(_) | Message::Cancel { .. } | Message::NoData { .. } | Message::Extension => 1,
        Message::Request(_) | Message::Unwant(_) | Message::Want(_) => 2,
        Message::Range { length, .. } => 1 + (length / PAGE).min(MAX_PAGES as u64) / 8,
        Message::Bitfield { words, .. } => 1 + words.len() as u64 / 512,
        Message::Data(data) => of_data(data),
    }
}

fn of_data(data: &Data) -> u64 {
    let block = data.block.as_ref().map_or(0, |block| block.value.len() / 1024 + block.nodes.len());
    let hash = data.hash.as_ref().map_or(0, |hash| hash.nodes.len());
    let seek = data.seek.as_ref().map_or(0, |seek| seek.nodes.len());
    // A signature is not much longer than the microseconds that it takes.
    let upgrade = |upgrade: &crate::messages::DataUpgrade| {
        upgrade.nodes.len() + upgrade.additional.len() + upgrade.signature.len()
    };
    (2 + block + hash + seek + data.upgrade.as_ref().map_or(0, upgrade)) as u64
}

/// Of the answer to a want.
pub fn of_look(wanted: &Wanted) -> u64 {
    1 + (wanted.length >> 14)
}
