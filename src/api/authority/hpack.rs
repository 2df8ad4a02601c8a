//! Walks one header block (RFC 7541 §6) and writes over the values whose name is `:authority`.
//!
//! The walk reads no value and keeps no header. Of the dynamic table it keeps one bit an entry: whether its name is
//! `:authority`, since a literal may take its name from there. What it writes has the length it had, coded and decoded:
//! the dynamic tables of client and server hold entries of equal size at equal places (RFC 7541 §4.1), and every index
//! the client sends later means what it meant.

use super::huffman;
use std::ops::Range;

/// The pseudo-header's name, plain and in Huffman code.
pub(super) const AUTHORITY: &[u8] = b":authority";
/// See [`AUTHORITY`].
pub(super) const AUTHORITY_CODED: &[u8] = &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f];

/// Index of `:authority` in the static table (RFC 7541 Appendix A).
const STATIC_AUTHORITY: usize = 1;
/// Index of the newest entry of the dynamic table (RFC 7541 §2.3.3).
const NEWEST: usize = 62;
/// Octets of one integer, prefix included; the limit of h2. Its largest value is 255 + 2^28 - 1: no overflow in a
/// `usize`.
const INTEGER_OCTETS: usize = 5;
/// Written over a plain value. A run of any length is a valid authority.
const FILLER: u8 = b'X';

/// The block breaks RFC 7541: the connection is lost (RFC 9113 §4.3), and h2 says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Which entries of the client's dynamic table are named `:authority`: bit 0 is the newest.
///
/// 128 bits are all a table can need: it has at most 4,096 bytes (the default of SETTINGS_HEADER_TABLE_SIZE, which our
/// server does not change) and an entry counts 32 bytes and more (RFC 7541 §4.1). Eviction needs no book: an index
/// beyond the live entries is an error that h2 sees. Nor does an entry too large for its table (§4.4): it empties the
/// table, and the bit that it leaves here is beyond all that live.
#[derive(Debug)]
pub(super) struct Names(u128);

impl Names {
    pub(super) const fn new() -> Self {
        Self(0)
    }

    fn insert(&mut self, authority: bool) {
        self.0 = self.0 << 1 | u128::from(authority);
    }

    fn is_authority(&self, index: usize) -> bool {
        let dynamic = || index.checked_sub(NEWEST).and_then(|age| self.0.checked_shr(u32::try_from(age).ok()?));
        index == STATIC_AUTHORITY || dynamic().is_some_and(|bits| bits & 1 == 1)
    }
}

/// The block as h2 shall see it, of the same length; `None` if it may stay as it is.
pub(super) fn rewrite(block: &[u8], names: &mut Names) -> Result<Option<Vec<u8>>, Malformed> {
    let mut rewritten = None;
    let mut walk = Walk { block, at: 0 };
    while let Some(first) = block.get(walk.at) {
        // RFC 7541 §6, by the leading bits.
        let (prefix, indexing) = match first.leading_zeros() {
            0 => {
                // §6.1: name and value from the tables. Ours was rewritten on its way in.
                walk.integer(7).and_then(|index| (index > 0).then_some(index)).ok_or(Malformed)?;
                continue;
            }
            1 => (6, true), // §6.2.1
            2 => {
                walk.integer(5).ok_or(Malformed)?; // §6.3
                continue;
            }
            _ => (4, false), // §6.2.2, §6.2.3
        };
        let (authority, value) = walk.literal(prefix, names).ok_or(Malformed)?;
        if indexing {
            names.insert(authority);
        }
        if authority {
            let copy = rewritten.get_or_insert_with(|| block.to_vec());
            if let Some(bytes) = copy.get_mut(value.bytes) {
                write_over(bytes, value.coded);
            }
        }
    }
    Ok(rewritten)
}

/// Writes a valid authority over a value. An empty value stays, and so does one in Huffman code that is broken or has
/// no authority of its length ([`huffman::fill`]): h2 refuses what is wrong with them.
fn write_over(value: &mut [u8], coded: bool) {
    if !coded {
        value.fill(FILLER);
    } else if let Some(symbols) = huffman::decoded_len(value) {
        huffman::fill(value, symbols);
    }
}

/// A string literal (RFC 7541 §5.2): where its bytes are, and whether they are in Huffman code.
struct Text {
    bytes: Range<usize>,
    coded: bool,
}

/// Reads `block` from `at` on. `None` always means that the block ends too early, or that an integer is too long.
struct Walk<'a> {
    block: &'a [u8],
    at: usize,
}

impl Walk<'_> {
    /// A literal field (RFC 7541 §6.2): whether its name is `:authority`, and its value.
    fn literal(&mut self, prefix: u32, names: &Names) -> Option<(bool, Text)> {
        let authority = match self.integer(prefix)? {
            0 => {
                let name = self.text()?;
                self.block.get(name.bytes)? == if name.coded { AUTHORITY_CODED } else { AUTHORITY }
            }
            index => names.is_authority(index),
        };
        Some((authority, self.text()?))
    }

    fn text(&mut self) -> Option<Text> {
        let coded = self.block.get(self.at)? & 0x80 != 0;
        let len = self.integer(7)?;
        let start = self.at;
        let end = start.checked_add(len).filter(|end| *end <= self.block.len())?;
        self.at = end;
        Some(Text { bytes: start..end, coded })
    }

    /// An integer with a prefix of `prefix` bits (RFC 7541 §5.1).
    fn integer(&mut self, prefix: u32) -> Option<usize> {
        let mask = (1_usize << prefix) - 1;
        let mut value = usize::from(self.octet()?) & mask;
        if value < mask {
            return Some(value);
        }
        for turn in 0..INTEGER_OCTETS - 1 {
            let octet = usize::from(self.octet()?);
            value += (octet & 0x7f) << (7 * turn);
            if octet & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn octet(&mut self) -> Option<u8> {
        let octet = *self.block.get(self.at)?;
        self.at += 1;
        Some(octet)
    }
}
