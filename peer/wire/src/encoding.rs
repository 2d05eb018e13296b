//! Compact encoding: how every message of the Hypercore family is written.
//!
//! Integers are little endian and take 1, 3, 5 or 9 bytes, buffers carry their length in front:
//!
//! ```text
//! uint    00..fc            the value itself
//!         fd  u16           up to 0xffff
//!         fe  u32           up to 0xffff_ffff
//!         ff  u64           up to 2^53 - 1, what JavaScript can hold
//! buffer  uint length, bytes         optional buffer: length 0 means none
//! array   uint count, items          fixed: bytes alone
//! ```
//!
//! [`Reader`] borrows: nothing is allocated by a length that a stranger announced. [`Writer`] collects into a `Vec<u8>`.

/// The largest integer on the wire, 2^53 - 1: JavaScript refuses more, and so do we.
/// Sums and products with small factors of two decoded integers therefore fit into a `u64`.
pub const MAX_UINT: u64 = (1 << 53) - 1;

/// Why a message can't be read. Whoever sent it is broken or hostile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The message ends inside a field.
    #[error("the message ends inside a field")]
    Short,
    /// An integer above [`MAX_UINT`], or above the type that it has to fit.
    #[error("an integer is larger than {max}")]
    TooLarge {
        /// The largest that is accepted here.
        max: u64,
    },
    /// An array announces more items than its field may have.
    #[error("an array has {count} items, at most {max} are allowed")]
    TooMany {
        /// Announced items.
        count: u64,
        /// Allowed items.
        max: usize,
    },
    /// A string is not UTF-8.
    #[error("a string is not UTF-8")]
    NotUtf8,
    /// A field has a value that its message does not allow; for decoders built on [`Reader`].
    #[error("invalid {0}")]
    Invalid(&'static str),
}

/// Reads fields from the front of a message; what it returns borrows from the message.
///
/// If the message is a `bytes::Bytes`, `Bytes::slice_ref` turns a returned slice into `Bytes` without a copy.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the start of `message`.
    pub const fn new(message: &'a [u8]) -> Self {
        Reader { rest: message }
    }

    /// Whether everything was read.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// How many bytes are left.
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// All that is left (the `raw` of compact-encoding); the reader is empty after it.
    pub const fn rest(&mut self) -> &'a [u8] {
        let rest = self.rest;
        self.rest = &[];
        rest
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Short)?;
        self.rest = rest;
        Ok(head)
    }

    /// One plain byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.fixed::<1>()?[0])
    }

    /// An integer of at most [`MAX_UINT`]. Longer forms than needed are accepted, as JavaScript does.
    pub fn uint(&mut self) -> Result<u64, DecodeError> {
        let value = match self.u8()? {
            0xfd => u64::from(u16::from_le_bytes(*self.fixed()?)),
            0xfe => u64::from(u32::from_le_bytes(*self.fixed()?)),
            0xff => u64::from_le_bytes(*self.fixed()?),
            small => u64::from(small),
        };
        if value > MAX_UINT {
            return Err(DecodeError::TooLarge { max: MAX_UINT });
        }
        Ok(value)
    }

    /// An integer that has to fit 32 bits.
    pub fn uint32(&mut self) -> Result<u32, DecodeError> {
        self.uint()?.try_into().map_err(|_| DecodeError::TooLarge { max: u64::from(u32::MAX) })
    }

    /// `N` bytes without a length in front.
    pub fn fixed<const N: usize>(&mut self) -> Result<&'a [u8; N], DecodeError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Short)?;
        self.rest = rest;
        Ok(head)
    }

    /// Bytes with their length in front.
    pub fn buffer(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.uint()?;
        self.bytes(usize::try_from(len).map_err(|_| DecodeError::Short)?)
    }

    /// A buffer whose length 0 means that there is none.
    pub fn optional_buffer(&mut self) -> Result<Option<&'a [u8]>, DecodeError> {
        Ok(Some(self.buffer()?).filter(|buffer| !buffer.is_empty()))
    }

    /// UTF-8 text with its length in bytes in front.
    pub fn string(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.buffer()?).map_err(|_| DecodeError::NotUtf8)
    }

    /// A count of at most `max`, to be followed by that many items.
    pub fn count(&mut self, max: usize) -> Result<usize, DecodeError> {
        let count = self.uint()?;
        match usize::try_from(count) {
            Ok(count) if count <= max => Ok(count),
            _ => Err(DecodeError::TooMany { count, max }),
        }
    }

    /// A counted array of at most `max` items, each read by `item`.
    pub fn array<T>(
        &mut self,
        max: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.count(max)?;
        // An item takes a byte at least, so a short message can't make us reserve much.
        let mut items = Vec::with_capacity(count.min(self.remaining()));
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// A `uint32array`: a count of at most `max` words, then the words in little endian.
    pub fn words(&mut self, max: usize) -> Result<Vec<u32>, DecodeError> {
        let count = self.count(max)?;
        let (words, _) = self.bytes(count.checked_mul(4).ok_or(DecodeError::Short)?)?.as_chunks::<4>();
        Ok(words.iter().map(|word| u32::from_le_bytes(*word)).collect())
    }
}

/// Writes fields one after the other.
///
/// ```
/// use datdot_wire::encoding::Writer;
/// let mut message = Writer::new();
/// message.uint(300).string("hi");
/// assert_eq!(message.into_vec(), [0xfd, 0x2c, 0x01, 2, b'h', b'i']);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Writer {
    buffer: Vec<u8>,
}

impl Writer {
    /// An empty message.
    pub const fn new() -> Self {
        Writer { buffer: Vec::new() }
    }

    /// An empty message with room for `bytes`.
    pub fn with_capacity(bytes: usize) -> Self {
        Writer { buffer: Vec::with_capacity(bytes) }
    }

    /// What was written.
    pub fn into_vec(self) -> Vec<u8> {
        self.buffer
    }

    /// What was written so far.
    pub fn as_slice(&self) -> &[u8] {
        &self.buffer
    }

    /// Length so far in bytes.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Makes room for `bytes` more.
    pub fn reserve(&mut self, bytes: usize) {
        self.buffer.reserve(bytes);
    }

    /// One plain byte.
    pub fn u8(&mut self, byte: u8) -> &mut Self {
        self.buffer.push(byte);
        self
    }

    /// An integer in its shortest form. Readers refuse more than [`MAX_UINT`].
    pub fn uint(&mut self, value: u64) -> &mut Self {
        debug_assert!(value <= MAX_UINT, "{value} is more than a reader accepts");
        let (encoded, len) = encode_uint(value);
        self.raw(&encoded[..len])
    }

    /// Bytes without a length: `fixed` fields, and the `raw` that ends a message.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.buffer.extend_from_slice(bytes);
        self
    }

    /// Bytes with their length in front.
    pub fn buffer(&mut self, bytes: &[u8]) -> &mut Self {
        self.uint(bytes.len() as u64).raw(bytes)
    }

    /// A buffer, or length 0 for none. An empty buffer and none are the same on the wire.
    pub fn optional_buffer(&mut self, bytes: Option<&[u8]>) -> &mut Self {
        self.buffer(bytes.unwrap_or_default())
    }

    /// UTF-8 text with its length in bytes in front.
    pub fn string(&mut self, text: &str) -> &mut Self {
        self.buffer(text.as_bytes())
    }

    /// A counted array, each item written by `item`.
    pub fn array<T>(&mut self, items: &[T], mut item: impl FnMut(&mut Self, &T)) -> &mut Self {
        self.uint(items.len() as u64);
        for each in items {
            item(self, each);
        }
        self
    }

    /// A `uint32array`: the count of words, then the words in little endian.
    pub fn words(&mut self, words: &[u32]) -> &mut Self {
        self.uint(words.len() as u64);
        for word in words {
            self.raw(&word.to_le_bytes());
        }
        self
    }
}

/// How many bytes [`Writer::uint`] takes for `value`: 1, 3, 5 or 9.
pub const fn uint_len(value: u64) -> usize {
    match value {
        0..=0xfc => 1,
        0xfd..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

fn encode_uint(value: u64) -> ([u8; 9], usize) {
    let len = uint_len(value);
    let mut out = [0; 9];
    out[0] = match len {
        1 => value.to_le_bytes()[0],
        3 => 0xfd,
        5 => 0xfe,
        _ => 0xff,
    };
    out[1..len].copy_from_slice(&value.to_le_bytes()[..len - 1]);
    (out, len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(fields: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::new();
        fields(&mut writer);
        writer.into_vec()
    }

    #[test]
    fn integers_are_as_javascript_writes_them() {
        // compact-encoding 3.5.2: enc.encode(enc.uint, n)
        for (value, hex) in [
            (0, "00"),
            (0xfc, "fc"),
            (0xfd, "fdfd00"),
            (0xffff, "fdffff"),
            (0x1_0000, "fe00000100"),
            (0xffff_ffff, "feffffffff"),
            (0x1_0000_0000, "ff0000000001000000"),
            (MAX_UINT, "ffffffffffffff1f00"),
        ] {
            let bytes = written(|w| _ = w.uint(value));
            assert_eq!(hex::encode(&bytes), hex);
            assert_eq!(bytes.len(), uint_len(value));
            assert_eq!(Reader::new(&bytes).uint(), Ok(value));
        }
    }

    #[test]
    fn long_forms_are_accepted_and_larger_integers_refused() {
        assert_eq!(Reader::new(&[0xfe, 7, 0, 0, 0]).uint(), Ok(7));
        assert_eq!(Reader::new(&[0xff; 9]).uint(), Err(DecodeError::TooLarge { max: MAX_UINT }));
        let over = written(|w| _ = w.uint(1 << 32));
        assert_eq!(Reader::new(&over).uint32(), Err(DecodeError::TooLarge { max: u64::from(u32::MAX) }));
    }

    #[test]
    fn composed_fields_are_as_javascript_writes_them() {
        let bytes = written(|w| {
            w.string("héllo").optional_buffer(None).buffer(&[1, 2]).words(&[1, 0x0102_0304]).raw(&[9; 2]);
        });
        assert_eq!(hex::encode(&bytes), "0668c3a96c6c6f00020102020100000004030201".to_owned() + "0909");
        let mut r = Reader::new(&bytes);
        assert_eq!(r.string(), Ok("héllo"));
        assert_eq!(r.optional_buffer(), Ok(None));
        assert_eq!(r.buffer(), Ok(&[1, 2][..]));
        assert_eq!(r.words(2), Ok(vec![1, 0x0102_0304]));
        assert_eq!(r.fixed(), Ok(&[9]));
        assert_eq!(r.rest(), [9]);
        assert!(r.is_empty());
    }

    #[test]
    fn an_announced_size_is_never_believed() {
        let huge = written(|w| _ = w.uint(MAX_UINT));
        assert_eq!(Reader::new(&huge).buffer(), Err(DecodeError::Short));
        let count = DecodeError::TooMany { count: MAX_UINT, max: 8 };
        assert_eq!(Reader::new(&huge).words(8), Err(count));
        assert_eq!(Reader::new(&huge).array(8, Reader::uint), Err(count));
        assert_eq!(Reader::new(&[8]).array(8, Reader::uint), Err(DecodeError::Short));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(a in 0..=MAX_UINT, b: Vec<u8>, s: String, words: Vec<u32>, list: Vec<(u32, [u8; 4])>) {
            let bytes = written(|w| {
                w.uint(a).buffer(&b).string(&s).words(&words);
                w.array(&list, |w, (n, fixed)| _ = w.uint(u64::from(*n)).raw(fixed));
                w.optional_buffer(Some(&b));
            });
            let mut r = Reader::new(&bytes);
            prop_assert_eq!(r.uint(), Ok(a));
            prop_assert_eq!(r.buffer(), Ok(&b[..]));
            prop_assert_eq!(r.string(), Ok(&s[..]));
            prop_assert_eq!(r.words(words.len()), Ok(words));
            prop_assert_eq!(r.array(list.len(), |r| Ok((r.uint32()?, *r.fixed()?))), Ok(list));
            prop_assert_eq!(r.optional_buffer(), Ok(Some(&b[..]).filter(|b| !b.is_empty())));
            prop_assert!(r.is_empty());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let r = Reader::new(&bytes);
            _ = r.clone().uint();
            _ = r.clone().buffer();
            _ = r.clone().string();
            _ = r.clone().words(1 << 20);
            _ = r.clone().array(1 << 20, |r| r.buffer().map(<[u8]>::len));
            _ = r.clone().fixed::<32>();
        }
    }
}
