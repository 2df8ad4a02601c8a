//! Keys that stay: one page each, locked against swap, left out of core dumps and of children, wiped when dropped.
//!
//! Safe code only (memmap2 has safe calls for anonymous pages). A kernel that refuses to lock (RLIMIT_MEMLOCK) does not stop the
//! service, since a reboot must always come back: [`LockedKey::is_locked`] is false and the caller reports it.

use memmap2::{Advice, MmapMut};
use zeroize::Zeroize;

use crate::types::Key;

/// No page could be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot map a page for a key")]
pub struct MemoryError(#[source] std::io::Error);

/// A 32-byte key in a page of its own.
pub struct LockedKey {
    page: MmapMut,
    locked: bool,
}

impl LockedKey {
    /// Moves the key into a locked page; the given copy is wiped.
    pub fn new(key: Key) -> Result<Self, MemoryError> {
        let mut page = MmapMut::map_anon(Key::LEN).map_err(MemoryError)?;
        let locked = page.lock().is_ok();
        for advice in [Advice::DontDump, Advice::DontFork] {
            page.advise(advice).map_err(MemoryError)?;
        }
        page[..Key::LEN].copy_from_slice(key.expose());
        Ok(Self { page, locked })
    }

    /// The bytes, for the length of one call.
    pub fn expose(&self) -> &[u8; Key::LEN] {
        const EMPTY: &[u8; Key::LEN] = &[0; Key::LEN];
        // The mapping is at least as long as was asked for; the fallback is for the type alone.
        self.page.first_chunk().unwrap_or(EMPTY)
    }

    /// Whether the kernel keeps the page out of swap.
    pub fn is_locked(&self) -> bool {
        self.locked
    }
}

impl Drop for LockedKey {
    fn drop(&mut self) {
        self.page.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of /proc/self/smaps for the mapping that holds `address`.
    fn smaps_of(address: usize) -> String {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        let mut found = String::new();
        for line in smaps.lines() {
            if let Some((range, _)) = line.split_once(' ').filter(|(range, _)| range.contains('-')) {
                let (start, end) = range.split_once('-').unwrap();
                let bounds = usize::from_str_radix(start, 16).unwrap()..usize::from_str_radix(end, 16).unwrap();
                inside = bounds.contains(&address);
            } else if inside {
                found.push_str(line);
                found.push('\n');
            }
        }
        found
    }

    #[test]
    fn the_kernel_says_that_the_page_is_locked_and_left_out_of_dumps_and_children() {
        let key = LockedKey::new(Key::copy_of(&[7; 32]).unwrap()).unwrap();
        assert_eq!(key.expose(), &[7; 32]);
        assert!(key.is_locked());
        let smaps = smaps_of(key.expose().as_ptr() as usize);
        let flags = smaps.lines().find(|line| line.starts_with("VmFlags:")).unwrap();
        for flag in [" lo", " dd", " dc"] {
            assert!(flags.contains(flag), "{flag} in {flags}");
        }
    }
}
