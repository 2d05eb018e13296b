//! The packet: 20 bytes of header, then selective acknowledgements, padding and payload.
//!
//! All integers are little endian. `docs/hyperswarm.md` has the drawing.

use std::ops::BitOr;

/// Bytes of the header.
pub const HEADER: usize = 20;
/// First byte of every packet; no other protocol that shares the socket begins with it.
pub const MAGIC: u8 = 0xff;
/// Second byte.
pub const VERSION: u8 = 1;
/// Bytes of one acknowledged range.
pub const RANGE: usize = 8;

/// What a packet carries: a set of the constants. None of them is a bare acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// The next piece of the stream.
    pub const DATA: Flags = Flags(1);
    /// The last packet of the stream; takes a sequence number even without data.
    pub const END: Flags = Flags(2);
    /// Ranges of packets that arrived out of order.
    pub const SACK: Flags = Flags(4);
    /// A message outside the stream: unordered, not repeated when lost.
    pub const MESSAGE: Flags = Flags(8);
    /// The stream is gone, at once.
    pub const DESTROY: Flags = Flags(16);
    /// Please acknowledge: keeps a path open, or asks for the window.
    pub const HEARTBEAT: Flags = Flags(32);

    /// Whether any of `flags` is set.
    pub const fn any(self, flags: Flags) -> bool {
        self.0 & flags.0 != 0
    }
}

impl BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// The fixed part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What follows.
    pub flags: Flags,
    /// Bytes between the header and the payload: ranges, or the padding of an MTU probe.
    pub offset: u8,
    /// The receiver's id of the stream.
    pub stream: u32,
    /// Bytes that the sender of this packet is ready to receive.
    pub window: u32,
    /// Number of this packet if it has `DATA` or `END`, else of the next that will. Counts packets, and wraps.
    pub seq: u32,
    /// Number of the packet that is expected next: all before it have arrived.
    pub ack: u32,
}

impl Header {
    /// Appends the 20 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut bytes = [MAGIC, VERSION, self.flags.0, self.offset, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        bytes[4..8].copy_from_slice(&self.stream.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.window.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.seq.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.ack.to_le_bytes());
        out.extend_from_slice(&bytes);
    }
}

/// A packet as it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The fixed part.
    pub header: Header,
    ranges: &'a [u8],
    /// The stream's bytes or the message; without `DATA` or `MESSAGE` it means nothing.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Takes a datagram apart. `None` if it isn't UDX, or if it promises more than it has.
    pub fn decode(datagram: &'a [u8]) -> Option<Packet<'a>> {
        let (head, rest) = datagram.split_first_chunk::<HEADER>()?;
        let [MAGIC, VERSION, flags, offset, words @ ..] = *head else { return None };
        let word = |n: usize| u32::from_le_bytes([words[4 * n], words[4 * n + 1], words[4 * n + 2], words[4 * n + 3]]);
        let flags = Flags(flags);
        let (between, payload) = match offset {
            // Ranges fill a packet that does not say where they end.
            0 if flags.any(Flags::SACK) => (rest, [].as_slice()),
            _ => rest.split_at_checked(offset.into())?,
        };
        let ranges = if flags.any(Flags::SACK) { between } else { &[] };
        let header = Header { flags, offset, stream: word(0), window: word(1), seq: word(2), ack: word(3) };
        Some(Packet { header, ranges, payload })
    }

    /// The acknowledged ranges, `(first, one past the last)`, as the remote claims them.
    pub fn ranges(&self) -> impl Iterator<Item = (u32, u32)> + use<'a> {
        self.ranges.chunks_exact(RANGE).map(|range| {
            let (start, end) = range.split_at(4);
            let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("half of 8 bytes"));
            (word(start), word(end))
        })
    }
}

/// Appends one range.
pub fn encode_range(start: u32, end: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&start.to_le_bytes());
    out.extend_from_slice(&end.to_le_bytes());
}

/// The 64-bit number nearest to `near` whose low half is `wire`: inside, sequence numbers never wrap.
pub fn widen(near: u64, wire: u32) -> u64 {
    near.wrapping_add_signed(i64::from(wire.wrapping_sub(near as u32) as i32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers() -> impl Strategy<Value = Header> {
        (any::<u8>(), any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>()).prop_map(
            |(flags, stream, window, seq, ack)| Header { flags: Flags(flags), offset: 0, stream, window, seq, ack },
        )
    }

    proptest! {
        #[test]
        fn a_packet_is_read_as_it_was_written(
            header in headers(),
            ranges in prop::collection::vec(any::<(u32, u32)>(), 0..20),
            padding in 0..90u8,
            payload in prop::collection::vec(any::<u8>(), 0..1452),
        ) {
            let mut header = header;
            header.offset = if ranges.is_empty() { padding } else { (ranges.len() * RANGE) as u8 };
            header.flags = match ranges.is_empty() {
                true => Flags(header.flags.0 & !Flags::SACK.0),
                false => header.flags | Flags::SACK,
            };
            let mut bytes = Vec::new();
            header.encode(&mut bytes);
            for (start, end) in &ranges {
                encode_range(*start, *end, &mut bytes);
            }
            bytes.resize(HEADER + usize::from(header.offset), 0);
            bytes.extend(&payload);
            let packet = Packet::decode(&bytes).unwrap();
            prop_assert_eq!(packet.header, header);
            prop_assert_eq!(packet.ranges().collect::<Vec<_>>(), ranges);
            prop_assert_eq!(packet.payload, &payload[..]);
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..100), ours: bool) {
            if ours && bytes.len() >= 2 {
                bytes[..2].copy_from_slice(&[MAGIC, VERSION]);
            }
            if let Some(packet) = Packet::decode(&bytes) {
                prop_assert!(packet.ranges().count() * RANGE + packet.payload.len() + HEADER <= bytes.len());
            }
        }

        #[test]
        fn numbers_are_widened_to_the_nearest(near in 1u64 << 32..1 << 60, step in i32::MIN + 1..i32::MAX) {
            let number = near.wrapping_add_signed(step.into());
            prop_assert_eq!(widen(near, number as u32), number);
        }
    }

    #[test]
    fn the_layout_is_that_of_libudx() {
        let header =
            Header { flags: Flags::DATA | Flags::END, offset: 0, stream: 1, window: 4 << 20, seq: 258, ack: 7 };
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        assert_eq!(bytes, [255, 1, 3, 0, 1, 0, 0, 0, 0, 0, 64, 0, 2, 1, 0, 0, 7, 0, 0, 0]);
    }

    #[test]
    fn an_offset_past_the_end_is_refused() {
        let header = Header { flags: Flags::DATA, offset: 3, stream: 0, window: 0, seq: 0, ack: 0 };
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        bytes.extend([0; 2]);
        assert_eq!(Packet::decode(&bytes), None);
    }
}
