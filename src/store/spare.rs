//! Room that the directory keeps for itself: a file of random bytes, `spare`, which is removed when the disk is full.
//!
//! A log that fills the volume must not keep a node from its keys at the next boot, and a start writes one small file. What is
//! replaced gives its own room back, so that the room of one write is enough for ever after, as long as nobody else takes it: who has
//! released the spare and written makes it again at once, of what is left.
//!
//! Holds on file systems that give freed blocks to the next writer: ext4, XFS, tmpfs. btrfs and others that write everything
//! anew need room of their own for names; there the spare helps against full data alone.

use super::{Disk, StateDir, StoreError};
use crate::types::random;

/// In the directory itself.
const FILE: &str = "spare";

/// Bytes. What file systems give at once.
const BLOCK_BYTES: usize = 4096;

/// Bytes. Below it no spare is worth its name.
const LEAST_BYTES: usize = 64 * 1024;

/// Bytes. Twice the largest payload and a copy of it; more is somebody's mistake.
const MOST_BYTES: usize = 4 * super::container::PAYLOAD_MAX_BYTES;

/// Bytes of a spare for files of these lengths: each twice in whole blocks, since a change writes both generations, and four blocks
/// for names.
pub fn room_for(lengths: &[usize]) -> usize {
    let files: usize = lengths.iter().map(|length| 2 * length.div_ceil(BLOCK_BYTES).max(1) * BLOCK_BYTES).sum();
    (files + 4 * BLOCK_BYTES).clamp(LEAST_BYTES, MOST_BYTES)
}

impl<D: Disk> StateDir<D> {
    /// Makes the spare, unless there is one of that size or more. Where there is no room for it, a half or a quarter of it and so on, down
    /// to one block. Gives the bytes that are kept from now on.
    ///
    /// A failure leaves what was there, and nothing that anybody needs depends on it: told, and no reason not to start.
    pub fn keep_spare(&self, bytes: usize) -> Result<usize, StoreError> {
        let path = self.root.join(FILE);
        let size = self.step("look at", &path, self.disk.size(&path))?;
        let kept = usize::try_from(size).unwrap_or(usize::MAX);
        let mut wanted = bytes.min(MOST_BYTES);
        let mut full = None;
        while wanted > kept && wanted >= BLOCK_BYTES {
            match self.write_spare(wanted) {
                Ok(()) => return Ok(wanted),
                Err(error) if error.is_full() => full = Some(error),
                Err(error) => return Err(error),
            }
            wanted /= 2;
        }
        match full {
            Some(error) if kept == 0 => Err(error),
            _ => Ok(kept),
        }
    }

    fn write_spare(&self, bytes: usize) -> Result<(), StoreError> {
        let path = self.root.join(FILE);
        // Neither zeros, which some file systems do not store, nor anything that could be compressed.
        let mut content = vec![0; bytes];
        let filled = random::fill(&mut content).map_err(std::io::Error::other);
        self.step("fill", &path, filled)?;
        let new = self.write_new(&path, &content)?;
        self.step("rename", &new, self.disk.rename(&new, &path))?;
        self.sync_parent(&path)
    }

    /// After [`StoreError::is_full`]: gives the room to the next write. False if there was none to give.
    pub fn release_spare(&self) -> bool {
        let path = self.root.join(FILE);
        let is_there = self.disk.size(&path).is_ok_and(|size| size > 0);
        let is_removed = is_there && self.disk.remove(&path).is_ok();
        if is_removed {
            // Journals free blocks when they commit; one that cannot be synced is still removed.
            let _ = self.disk.sync_dir(&self.root);
        }
        is_removed
    }
}

#[cfg(test)]
mod tests;
