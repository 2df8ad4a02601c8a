//! Pages of a bbolt file, checked before anything of them is believed.
//!
//! Layout: go.etcd.io/bbolt `internal/common/page.go`, `meta.go`, `bucket.go`. All numbers are little-endian: bbolt writes them as the
//! processor has them, and both of ours are little-endian.

use super::SnapshotError;

/// `pageHeaderSize`: id, flags, count, overflow.
pub(super) const HEADER_BYTES: usize = 16;
/// Of a branch's and a leaf's element.
const ELEMENT_BYTES: usize = 16;
/// `bucketHeaderSize`: root page and sequence.
const BUCKET_BYTES: usize = 16;

const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const META: u16 = 0x04;
const IS_BUCKET: u32 = 0x01;
const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
/// Of a meta page behind its header: magic to txid, and then the checksum over them.
const META_BYTES: usize = 56;
/// Smallest and largest page of the processors that there are (`os.Getpagesize`).
pub(super) const PAGE_SIZES: std::ops::RangeInclusive<usize> = 1024..=65_536;

/// What a file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) page_size: usize,
    /// Root page of the bucket of buckets.
    pub(super) root: u64,
    /// Pages that were ever used; a file may be longer.
    pub(super) pages: u64,
    pub(super) txid: u64,
}

impl Meta {
    /// From the start of page `number`. `None`: no meta page, or a damaged one.
    pub(super) fn read(number: u64, page: &[u8]) -> Option<Self> {
        let meta = page.get(HEADER_BYTES..)?;
        let (body, checksum) = (meta.get(..META_BYTES)?, u64_at(meta, META_BYTES)?);
        let flags = u16::from_le_bytes(page.get(8..10)?.try_into().ok()?);
        let is_good = u64_at(page, 0)? == number
            && flags & META != 0
            && u32_at(body, 0)? == MAGIC
            && u32_at(body, 4)? == VERSION
            && fnv_1a(body) == checksum;
        let page_size = usize::try_from(u32_at(body, 8)?).ok()?;
        let fits = page_size.is_power_of_two() && PAGE_SIZES.contains(&page_size);
        (is_good && fits).then_some(Self {
            page_size,
            root: u64_at(body, 16)?,
            pages: u64_at(body, 40)?,
            txid: u64_at(body, 48)?,
        })
    }
}

/// FNV-1a with 64 bits (`hash/fnv.New64a`).
fn fnv_1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// A page with its overflow, whose number and kind are known to fit.
pub(super) struct Page<'a> {
    id: u64,
    bytes: &'a [u8],
    count: usize,
    pub(super) is_leaf: bool,
}

/// Of a branch: everything from this key on, up to the next element's, is below that page.
pub(super) struct BranchElement<'a> {
    pub(super) key: &'a [u8],
    pub(super) page: u64,
}

/// Of a leaf.
pub(super) struct LeafElement<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) is_bucket: bool,
}

/// Whether this header is a branch's.
pub(super) fn is_branch(header: &[u8; HEADER_BYTES]) -> bool {
    u16::from_le_bytes([header[8], header[9]]) == BRANCH
}

/// Further pages that belong to the one whose header this is.
pub(super) fn overflow(header: &[u8; HEADER_BYTES]) -> u32 {
    let [.., a, b, c, d] = *header;
    u32::from_le_bytes([a, b, c, d])
}

impl<'a> Page<'a> {
    /// `id` 0 is an inline page, which has no number of its own.
    pub(super) fn read(id: u64, bytes: &'a [u8]) -> Result<Self, SnapshotError> {
        let damaged = |what| SnapshotError::Page { page: id, what };
        let header = bytes.first_chunk::<HEADER_BYTES>().ok_or(damaged("it has no header"))?;
        if u64_at(header, 0) != Some(id) {
            return Err(damaged("it has the number of another page"));
        }
        let flags = u16::from_le_bytes([header[8], header[9]]);
        let is_leaf = match flags {
            BRANCH => false,
            LEAF => true,
            _ => return Err(damaged("it is neither branch nor leaf")),
        };
        let count = usize::from(u16::from_le_bytes([header[10], header[11]]));
        if HEADER_BYTES + count * ELEMENT_BYTES > bytes.len() {
            return Err(damaged("it has more elements than room"));
        }
        Ok(Self { id, bytes, count, is_leaf })
    }

    pub(super) const fn count(&self) -> usize {
        self.count
    }

    /// Bytes at an element's own place and offset.
    fn part(&self, at: usize, offset: u32, len: u32) -> Option<&'a [u8]> {
        let start = at.checked_add(usize::try_from(offset).ok()?)?;
        // Behind the table of elements.
        let table = HEADER_BYTES + self.count * ELEMENT_BYTES;
        let part = self.bytes.get(start..start.checked_add(usize::try_from(len).ok()?)?)?;
        (start >= table).then_some(part)
    }

    /// `None` beyond the last.
    pub(super) fn branch(&self, number: usize) -> Result<BranchElement<'a>, SnapshotError> {
        let at = HEADER_BYTES + number * ELEMENT_BYTES;
        let read = || {
            let (offset, key_bytes) = (u32_at(self.bytes, at)?, u32_at(self.bytes, at + 4)?);
            Some(BranchElement { key: self.part(at, offset, key_bytes)?, page: u64_at(self.bytes, at + 8)? })
        };
        read().ok_or(SnapshotError::Page { page: self.id, what: "an element of it reaches beyond it" })
    }

    /// One of `count`.
    pub(super) fn leaf(&self, number: usize) -> Result<LeafElement<'a>, SnapshotError> {
        let at = HEADER_BYTES + number * ELEMENT_BYTES;
        let read = || {
            let (flags, offset) = (u32_at(self.bytes, at)?, u32_at(self.bytes, at + 4)?);
            let (key_bytes, value_bytes) = (u32_at(self.bytes, at + 8)?, u32_at(self.bytes, at + 12)?);
            let key = self.part(at, offset, key_bytes)?;
            let value = self.part(at, offset.checked_add(key_bytes)?, value_bytes)?;
            Some(LeafElement { key, value, is_bucket: flags & IS_BUCKET != 0 })
        };
        read().ok_or(SnapshotError::Page { page: self.id, what: "an element of it reaches beyond it" })
    }
}

/// A bucket as it stands in its parent: a page, or the page itself.
pub(super) enum Bucket<'a> {
    At(u64),
    Inline(&'a [u8]),
}

impl<'a> Bucket<'a> {
    pub(super) fn read(value: &'a [u8], page: u64) -> Result<Self, SnapshotError> {
        let (head, inline) =
            value.split_at_checked(BUCKET_BYTES).ok_or(SnapshotError::Page { page, what: "a bucket in it is cut" })?;
        match u64_at(head, 0) {
            None | Some(0) => Ok(Self::Inline(inline)),
            Some(root) => Ok(Self::At(root)),
        }
    }
}
