//! etcd's database as a file: a snapshot of `etcdctl snapshot save`, or `member/snap/db` of an etcd that is stopped.
//!
//! Read with pread(2) alone, page by page; nothing is mapped and nothing is written. What it refuses: a hash that does not fit, a
//! file that is cut, a page that is not what its parent says, keys that are out of order, and objects that are no objects. It counts
//! nothing that it does not understand: any of these ends the reading ([`SnapshotError`]).
//!
//! bbolt keeps each revision of each key until a compaction. The tree of revisions is walked from the newest to the oldest, and
//! the first sight of a key counts. Which keys were seen is remembered by hashes of 128 bits, and for a large file in several passes,
//! so that memory is bounded ([`SEEN_MAX`]). A cycle of pages would show revisions that are not older than the last one.
//!
//! Sources: go.etcd.io/bbolt (`internal/common`), etcd `server/storage/mvcc/revision.go` (17 bytes: main, `_`, sub; and `t` for a deleted
//! key), `etcdutl/snapshot` (the SHA-256 behind the last page).

mod error;
mod page;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod writer;

use std::collections::HashSet;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

pub use self::error::SnapshotError;
use self::page::{Bucket, HEADER_BYTES, Meta, PAGE_SIZES, Page, is_branch, overflow};
use super::range::key_value;
use super::{OBJECT_MAX_BYTES, Stored};
use crate::types::open_regular;

/// Bytes behind the last page: SHA-256 of all before it.
const HASH_BYTES: u64 = 32;
/// Pages are a multiple of it, whatever the processor (etcdutl, `snapshotManager.Status`).
const ALIGNED_BYTES: u64 = 512;
/// Keys that are remembered at once: 17 bytes each in a table that is a power of two.
pub const SEEN_MAX: u64 = 450_000;
/// A page with its overflow holds two elements at least (`common.MinKeysPerPage`).
const PAGE_MAX_BYTES: u64 = 4 * OBJECT_MAX_BYTES as u64;
/// All levels are in memory at once: 65,535 elements of 16 bytes, with revisions of 18.
const BRANCH_MAX_BYTES: u64 = 4 << 20;
/// Levels of a tree: 10^9 revisions need six with 64 elements a page.
const DEPTH_MAX: usize = 32;
/// Read at once for the hash.
const CHUNK_BYTES: usize = 1 << 20;
const BUCKET: &[u8] = b"key";

/// Whether the bytes are known to be those that etcd wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// A snapshot, whose hash fits.
    Checked,
    /// A member's database, which has none.
    Absent,
}

/// A file that is good as far as it was looked at.
pub struct Snapshot {
    file: Flock<File>,
    meta: Meta,
    hash: Hash,
    revision: i64,
    /// Revisions that are stored, also of keys that were deleted or changed since.
    entries: u64,
}

/// Takes one element of a leaf: the page's number, key and value.
type TakeRevision<'a, E> = dyn FnMut(u64, &[u8], &[u8]) -> Result<(), E> + 'a;

/// What a revision is of, and what it says.
struct Entry<'a> {
    main: i64,
    is_deleted: bool,
    stored: Stored<'a>,
}

impl Snapshot {
    /// Checks hash and head, and walks the whole tree once.
    pub fn open(path: &Path) -> Result<Self, SnapshotError> {
        let file = match Flock::lock(open_regular(path)?, FlockArg::LockSharedNonblock) {
            Ok(file) => file,
            Err((_, Errno::EWOULDBLOCK)) => return Err(SnapshotError::InUse),
            Err((_, error)) => return Err(SnapshotError::Io(error.into())),
        };
        let size = file.metadata()?.len();
        let (bytes, hash) = match size % ALIGNED_BYTES {
            0 => (size, Hash::Absent),
            HASH_BYTES => (size - HASH_BYTES, Hash::Checked),
            _ => return Err(SnapshotError::Length { size }),
        };
        if hash == Hash::Checked && !fits_hash(&file, bytes)? {
            return Err(SnapshotError::Hash);
        }
        let meta = meta(&file, bytes)?;
        let pages = bytes / meta.page_size as u64;
        if pages < meta.pages {
            return Err(SnapshotError::Cut { pages, expected: meta.pages });
        }
        let mut snapshot = Self { file, meta, hash, revision: 0, entries: 0 };
        let (mut newest, mut entries) = (0, 0);
        snapshot.walk(&mut |entry| {
            newest = newest.max(entry.main);
            entries += 1;
            Ok::<(), SnapshotError>(())
        })?;
        (snapshot.revision, snapshot.entries) = (newest, entries);
        Ok(snapshot)
    }

    /// Whether the file proves itself.
    pub const fn hash(&self) -> Hash {
        self.hash
    }

    /// The newest in the file.
    pub const fn revision(&self) -> i64 {
        self.revision
    }

    /// At least as many as there are objects.
    pub const fn entries(&self) -> u64 {
        self.entries
    }

    /// Every key that begins with `prefix`, once, as it was at the newest revision. In no order.
    pub fn each<E: From<SnapshotError>>(
        &self,
        prefix: &[u8],
        each: &mut dyn FnMut(Stored<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.each_in_passes(prefix, self.entries.div_ceil(SEEN_MAX).max(1), each)
    }

    fn each_in_passes<E: From<SnapshotError>>(
        &self,
        prefix: &[u8],
        passes: u64,
        each: &mut dyn FnMut(Stored<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        // Keyed, so that nobody can choose names that collide.
        let (low, high) = (RandomState::new(), RandomState::new());
        let expected = usize::try_from(self.entries.min(SEEN_MAX)).unwrap_or_default();
        let mut seen = HashSet::with_capacity(expected);
        for pass in 0..passes {
            seen.clear();
            self.walk(&mut |Entry { is_deleted, stored, .. }| {
                if !stored.key.starts_with(prefix) {
                    return Ok(());
                }
                let hash = (low.hash_one(stored.key), high.hash_one(stored.key));
                if hash.0 % passes != pass || !seen.insert(hash) || is_deleted {
                    return Ok(());
                }
                each(stored)
            })?;
        }
        Ok(())
    }

    /// All revisions, from the newest to the oldest.
    fn walk<E: From<SnapshotError>>(&self, each: &mut dyn FnMut(Entry<'_>) -> Result<(), E>) -> Result<(), E> {
        let mut below = None::<Vec<u8>>;
        let mut take = |page: u64, key: &[u8], value: &[u8]| {
            let damaged = |what| SnapshotError::Page { page, what };
            if below.as_deref().is_some_and(|below| key >= below) {
                return Err(damaged("its revisions are not in order").into());
            }
            let last = below.get_or_insert_default();
            last.clear();
            last.extend_from_slice(key);
            let (main, is_deleted) = revision(key).ok_or_else(|| damaged("a key of it is no revision"))?;
            let stored = key_value(value).map_err(|_| damaged("a value of it is no object"))?;
            // A deleted key has no number of its own (etcd, `mvcc.delete`).
            if !is_deleted && stored.mod_revision != main {
                return Err(damaged("an object of it is of another revision").into());
            }
            each(Entry { main, is_deleted, stored })
        };
        match self.bucket()? {
            Root::At(root) => self.walk_page(root, &[], None, DEPTH_MAX, &mut take),
            Root::Inline(bytes) => walk_leaf(&Page::read(0, &bytes)?, 0, &mut take),
        }
    }

    /// The bucket `key` in the bucket of buckets, which is small: a dozen names.
    fn bucket(&self) -> Result<Root, SnapshotError> {
        let (mut found, mut page) = (None, self.meta.root);
        for _ in 0..DEPTH_MAX {
            let bytes = self.page(page)?;
            let node = Page::read(page, &bytes)?;
            if node.is_leaf {
                for number in 0..node.count() {
                    let element = node.leaf(number)?;
                    if element.key == BUCKET && element.is_bucket {
                        found = Some(match Bucket::read(element.value, page)? {
                            Bucket::At(root) => Root::At(root),
                            Bucket::Inline(inline) => Root::Inline(inline.to_vec()),
                        });
                    }
                }
                return found.ok_or(SnapshotError::Bucket);
            }
            // The last one that does not begin behind the name.
            let mut next = None;
            for number in 0..node.count() {
                let element = node.branch(number)?;
                if number == 0 || element.key <= BUCKET {
                    next = Some(element.page);
                }
            }
            page = next.ok_or(SnapshotError::Page { page, what: "it is an empty branch" })?;
        }
        Err(SnapshotError::Page { page, what: "it lies deeper than any tree of bbolt" })
    }

    /// From right to left. All keys are from `low` on and before `high`.
    fn walk_page<E: From<SnapshotError>>(
        &self,
        page: u64,
        low: &[u8],
        high: Option<&[u8]>,
        depth: usize,
        take: &mut TakeRevision<'_, E>,
    ) -> Result<(), E> {
        let damaged = |what| SnapshotError::Page { page, what };
        let depth = depth.checked_sub(1).ok_or_else(|| damaged("it lies deeper than any tree of bbolt"))?;
        let bytes = self.page(page)?;
        let node = Page::read(page, &bytes)?;
        if node.is_leaf {
            // Each way down ends in a revision that is older than the last one, so that no page is walked twice.
            if node.count() == 0 && depth + 1 < DEPTH_MAX {
                return Err(damaged("it is an empty leaf").into());
            }
            let mut bounded = |page: u64, key: &[u8], value: &[u8]| {
                if key < low || high.is_some_and(|high| key >= high) {
                    return Err(damaged("a key of it belongs below another branch").into());
                }
                take(page, key, value)
            };
            return walk_leaf(&node, page, &mut bounded);
        }
        if node.count() == 0 {
            return Err(damaged("it is an empty branch").into());
        }
        let mut end: Option<&[u8]> = high;
        for number in (0..node.count()).rev() {
            let element = node.branch(number)?;
            if end.is_some_and(|end| element.key >= end) || (number > 0 && element.key < low) {
                return Err(damaged("its keys are not in order").into());
            }
            // The first one begins where its parent says: bbolt does not move it when smaller keys come.
            let from = if number == 0 { low.min(element.key) } else { element.key };
            self.walk_page(element.page, from, end, depth, take)?;
            end = Some(element.key);
        }
        Ok(())
    }

    /// A page with its overflow.
    fn page(&self, id: u64) -> Result<Vec<u8>, SnapshotError> {
        let damaged = |what| SnapshotError::Page { page: id, what };
        // 0 and 1 are the heads.
        if id < 2 || id >= self.meta.pages {
            return Err(damaged("its number is none of this file"));
        }
        // Below the file's size, since the number of pages is.
        let at = id * self.meta.page_size as u64;
        let mut header = [0; HEADER_BYTES];
        self.file.read_exact_at(&mut header, at)?;
        let pages = u64::from(overflow(&header)) + 1;
        let len = pages * self.meta.page_size as u64;
        let most = if is_branch(&header) { BRANCH_MAX_BYTES } else { PAGE_MAX_BYTES };
        if id + pages > self.meta.pages || len > most {
            return Err(damaged("it is longer than the file, or than any page"));
        }
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| damaged("it is longer than memory"))?];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }
}

enum Root {
    At(u64),
    Inline(Vec<u8>),
}

fn walk_leaf<E: From<SnapshotError>>(node: &Page<'_>, page: u64, take: &mut TakeRevision<'_, E>) -> Result<(), E> {
    if !node.is_leaf {
        return Err(SnapshotError::Page { page, what: "it is no leaf" }.into());
    }
    for number in (0..node.count()).rev() {
        let element = node.leaf(number)?;
        if element.is_bucket {
            return Err(SnapshotError::Page { page, what: "it has a bucket where only revisions are" }.into());
        }
        take(page, element.key, element.value)?;
    }
    Ok(())
}

/// Main revision, and whether the key was deleted by it.
fn revision(key: &[u8]) -> Option<(i64, bool)> {
    let (main, rest) = key.split_first_chunk::<8>()?;
    let (is_deleted, sub) = match rest {
        [b'_', sub @ .., b't'] if sub.len() == 8 => (true, sub),
        [b'_', sub @ ..] if sub.len() == 8 => (false, sub),
        _ => return None,
    };
    let main = i64::from_be_bytes(*main);
    // Both are counted from 0 up.
    (main >= 0 && sub[0] & 0x80 == 0).then_some((main, is_deleted))
}

fn fits_hash(file: &File, bytes: u64) -> Result<bool, SnapshotError> {
    let (mut hash, mut chunk, mut at) = (Sha256::new(), vec![0; CHUNK_BYTES], 0);
    while at < bytes {
        let len = usize::try_from(bytes - at).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        file.read_exact_at(&mut chunk[..len], at)?;
        hash.update(&chunk[..len]);
        at += len as u64;
    }
    let mut stored = [0; HASH_BYTES as usize];
    file.read_exact_at(&mut stored, bytes)?;
    Ok(hash.finalize()[..] == stored)
}

/// The newer of the two heads that are whole. The second one's place is known from the first; only where that is damaged it is looked
/// for, as bbolt does: what lies elsewhere may be an object that somebody has made to look like a head.
fn meta(file: &File, bytes: u64) -> Result<Meta, SnapshotError> {
    let head = |number: u64, at: u64| -> Result<Option<Meta>, SnapshotError> {
        let mut head = [0; 128];
        if at + head.len() as u64 > bytes {
            return Ok(None);
        }
        file.read_exact_at(&mut head, at)?;
        Ok(Meta::read(number, &head))
    };
    if let Some(first) = head(0, 0)? {
        let second = head(1, first.page_size as u64)?.filter(|second| second.page_size == first.page_size);
        return Ok(second.filter(|second| second.txid > first.txid).unwrap_or(first));
    }
    let mut at = *PAGE_SIZES.start() as u64;
    while at <= *PAGE_SIZES.end() as u64 {
        if let Some(second) = head(1, at)?.filter(|second| second.page_size as u64 == at) {
            return Ok(second);
        }
        at *= 2;
    }
    Err(SnapshotError::Meta)
}
