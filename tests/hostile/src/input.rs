//! The bytes of a target, read as decisions. What is missing at the end counts as zeros, so every input is one.

/// What is left of the bytes.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All of them.
    pub fn new(bytes: &'a [u8]) -> Self {
        Input(bytes)
    }

    /// Whether all is read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn u8(&mut self) -> u8 {
        self.fixed::<1>()[0]
    }

    /// The next two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.fixed())
    }

    /// An integer: small ones, those near powers of two, and any.
    pub fn uint(&mut self) -> u64 {
        match self.u8() {
            small @ 0..200 => small.into(),
            power @ 200..=253 => (1u64 << (power - 200)) - u64::from(self.u8() % 2),
            254 => self.u16().into(),
            255 => u64::from_le_bytes(self.fixed()),
        }
    }

    /// Less than `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        let any = if end <= 256 { self.u8().into() } else { usize::from(self.u16()) };
        any % end
    }

    /// Yes or no.
    pub fn bool(&mut self) -> bool {
        self.u8() & 1 != 0
    }

    /// The next `N` bytes.
    pub fn fixed<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let (head, rest) = self.0.split_at(N.min(self.0.len()));
        bytes[..head.len()].copy_from_slice(head);
        self.0 = rest;
        bytes
    }

    /// A part with its length in front.
    pub fn part(&mut self) -> &'a [u8] {
        let len = usize::from(self.u16()).min(self.0.len());
        let (part, rest) = self.0.split_at(len);
        self.0 = rest;
        part
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// What a stranger makes of honest bytes: none, one or several changes.
    pub fn alter(&mut self, honest: &[u8]) -> Vec<u8> {
        let mut bytes = honest.to_vec();
        loop {
            let at = |input: &mut Self, len: usize| if len == 0 { 0 } else { input.below(len) };
            match self.u8() % 8 {
                1 | 2 if !bytes.is_empty() => {
                    let at = at(self, bytes.len());
                    bytes[at] = self.u8();
                }
                3 if !bytes.is_empty() => {
                    let at = at(self, bytes.len());
                    bytes[at] ^= 1 << (self.u8() % 8);
                }
                4 => {
                    let at = at(self, bytes.len() + 1);
                    bytes.splice(at..at, self.part().iter().copied());
                }
                5 => {
                    let from = at(self, bytes.len() + 1);
                    let to = (from + usize::from(self.u8())).min(bytes.len());
                    bytes.drain(from..to);
                }
                6 => {
                    let end = at(self, bytes.len() + 1);
                    bytes.truncate(end);
                }
                7 => bytes = self.part().to_vec(),
                _ => return bytes,
            }
        }
    }
}
