//! Bytes that wait, to be sent or to be read, in large pieces from which packets are cut without copying.

use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;

/// Size of a piece. Packets keep theirs alive until they are acknowledged.
const PIECE: usize = 64 << 10;

/// A queue of bytes.
#[derive(Debug, Default)]
pub struct Queue {
    pieces: VecDeque<BytesMut>,
    len: usize,
}

impl Queue {
    /// Bytes in the queue.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a copy.
    pub fn push(&mut self, mut bytes: &[u8]) {
        self.len += bytes.len();
        while !bytes.is_empty() {
            let room = self.pieces.back().map_or(0, |piece| piece.capacity() - piece.len());
            if room == 0 {
                // Small writes get small pieces: an idle stream keeps no 64 KiB.
                let size = if self.pieces.is_empty() { bytes.len().clamp(2048, PIECE) } else { PIECE };
                self.pieces.push_back(BytesMut::with_capacity(size));
                continue;
            }
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.pieces.back_mut().expect("it has room").extend_from_slice(now);
            bytes = later;
        }
    }

    /// Takes up to `max` bytes from the front.
    pub fn pop(&mut self, max: usize) -> Bytes {
        let wanted = max.min(self.len);
        self.len -= wanted;
        let Some(first) = self.pieces.front_mut() else { return Bytes::new() };
        if first.len() >= wanted {
            let bytes = first.split_to(wanted).freeze();
            // A queue that is empty keeps nothing, so that an idle stream costs nothing.
            if first.is_empty() && (first.capacity() == 0 || self.len == 0) {
                self.pieces.pop_front();
            }
            return bytes;
        }
        let mut bytes = BytesMut::with_capacity(wanted);
        while bytes.len() < wanted {
            let first = self.pieces.front_mut().expect("`len` bytes are in the pieces");
            let part = first.split_to(first.len().min(wanted - bytes.len()));
            bytes.extend_from_slice(&part);
            if first.is_empty() {
                self.pieces.pop_front();
            }
        }
        bytes.freeze()
    }

    /// Moves bytes from the front into `buffer`; returns how many.
    pub fn read(&mut self, buffer: &mut [u8]) -> usize {
        let mut read = 0;
        while read < buffer.len()
            && let Some(first) = self.pieces.front_mut()
        {
            let part = first.len().min(buffer.len() - read);
            buffer[read..read + part].copy_from_slice(&first[..part]);
            read += part;
            self.len -= part;
            if part == first.len() {
                self.pieces.pop_front();
            } else {
                first.advance(part);
            }
        }
        read
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        *self = Queue::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out(steps in prop::collection::vec((any::<bool>(), 0usize..100_000), 1..60)) {
            let (mut queue, mut model) = (Queue::default(), VecDeque::new());
            let mut next = 0u8;
            for (push, amount) in steps {
                if push {
                    let bytes: Vec<u8> = (0..amount).map(|n| next.wrapping_add(n as u8)).collect();
                    next = next.wrapping_add(amount as u8).wrapping_add(3);
                    queue.push(&bytes);
                    model.extend(bytes);
                } else {
                    let mut bytes = queue.pop(amount % 3000).to_vec();
                    prop_assert_eq!(bytes.len(), model.len().min(amount % 3000));
                    prop_assert!(bytes.iter().copied().eq(model.drain(..bytes.len())));
                    bytes.resize(amount % 70_000, 0);
                    let read = queue.read(&mut bytes);
                    prop_assert_eq!(read, model.len().min(amount % 70_000));
                    prop_assert!(bytes[..read].iter().copied().eq(model.drain(..read)));
                }
                prop_assert_eq!(queue.len(), model.len());
            }
        }
    }
}
