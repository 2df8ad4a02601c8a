//! Reads and writes the fields of our binary formats: big-endian integers and length-prefixed bytes.
//!
//! The reader is total over any bytes: it never panics, never allocates more than it was given, and every format ends with
//! [`Reader::end`], so that trailing bytes are an error and each value has exactly one encoding.

use zeroize::Zeroize;

use super::clock::{self, UnixSeconds};

/// The bytes are not what the format asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A field holds a value that this version does not know.
    #[error("field `{0}` holds an unknown or impossible value")]
    BadValue(&'static str),
    /// The bytes end inside of a field.
    #[error("the bytes end inside field `{0}`")]
    Short(&'static str),
    /// Bytes are left after the last field.
    #[error("{0} bytes are left after the last field")]
    Trailing(usize),
}

/// Walks over borrowed bytes, field by field. The name of a field is for the error alone.
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], WireError> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(WireError::Short(field))?;
        self.0 = tail;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], WireError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(WireError::Short(field))?;
        self.0 = tail;
        Ok(*head)
    }

    /// One byte.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, WireError> {
        Ok(u8::from_be_bytes(self.array(field)?))
    }

    /// Two bytes, big-endian.
    pub fn u16(&mut self, field: &'static str) -> Result<u16, WireError> {
        Ok(u16::from_be_bytes(self.array(field)?))
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, WireError> {
        Ok(u32::from_be_bytes(self.array(field)?))
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self, field: &'static str) -> Result<u64, WireError> {
        Ok(u64::from_be_bytes(self.array(field)?))
    }

    /// A time that can be shown: at most [`clock::LAST`], so that no sum of it and an age overflows either.
    pub fn time(&mut self, field: &'static str) -> Result<UnixSeconds, WireError> {
        let time = self.u64(field)?;
        if time <= clock::LAST { Ok(time) } else { Err(WireError::BadValue(field)) }
    }

    /// A u16 length and as many bytes.
    pub fn bytes16(&mut self, field: &'static str) -> Result<&'a [u8], WireError> {
        let len = self.u16(field)?;
        self.take(usize::from(len), field)
    }

    /// [`Reader::bytes16`] that holds UTF-8.
    pub fn text16(&mut self, field: &'static str) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes16(field)?).map_err(|_| WireError::BadValue(field))
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Asserts that nothing is left.
    pub fn end(self) -> Result<(), WireError> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(WireError::Trailing(left)),
        }
    }
}

/// Appends fields to a vector, the mirror of [`Reader`].
#[derive(Default)]
pub struct Writer(Vec<u8>);

/// Most messages and files of ours fit at once.
const FIRST_ROOM_BYTES: usize = 256;

impl Writer {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Raw bytes, without a length.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.make_room(bytes.len());
        self.0.extend_from_slice(bytes);
        self
    }

    /// Moves to a larger buffer and wipes the old one: some messages hold keys.
    fn make_room(&mut self, bytes: usize) {
        let needed = self.0.len() + bytes;
        if needed > self.0.capacity() {
            let mut larger = Vec::with_capacity(needed.max(2 * self.0.capacity()).max(FIRST_ROOM_BYTES));
            larger.extend_from_slice(&self.0);
            self.0.zeroize();
            self.0 = larger;
        }
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.raw(&[value])
    }

    /// Two bytes, big-endian.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// A u16 length and the bytes. What is longer than 65,535 bytes is cut: every caller's field is bounded below that.
    pub fn bytes16(&mut self, bytes: &[u8]) -> &mut Self {
        let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.u16(len).raw(&bytes[..usize::from(len)])
    }

    /// The bytes written so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The finished bytes.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back_and_nothing_is_left() {
        let bytes = Writer::new().u8(1).u16(2).u32(3).u64(4).bytes16(b"five").raw(b"six").finish();
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.u8("a"), Ok(1));
        assert_eq!(reader.u16("b"), Ok(2));
        assert_eq!(reader.u32("c"), Ok(3));
        assert_eq!(reader.u64("d"), Ok(4));
        assert_eq!(reader.text16("e"), Ok("five"));
        assert_eq!(reader.array("f"), Ok(*b"six"));
        assert_eq!(reader.end(), Ok(()));
    }

    #[test]
    fn short_and_trailing_bytes_are_errors_that_name_the_field() {
        assert_eq!(Reader::new(&[0, 5, 1]).bytes16("name"), Err(WireError::Short("name")));
        assert_eq!(Reader::new(&[1]).end(), Err(WireError::Trailing(1)));
    }
}
