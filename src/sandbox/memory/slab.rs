//! Places for keys, many to a page, taken and given back. The pages are never unmapped: as many stay as were once needed at the same time.

use std::sync::{Mutex, MutexGuard};

use zeroize::Zeroize;

use super::super::raw;
use super::{MemoryError, Protection};
use crate::types::{Key, lock};

type Place = &'static mut [u8; Key::LEN];

/// Bytes that are asked for at once: 512 keys. A node with one KEK a quarter never needs a second time, one with 4,096 KEKs of
/// other nodes asks nine times.
const REGION_BYTES: usize = 16 * 1024;

struct Slab {
    free: Vec<(Place, Protection)>,
    weakest: Option<Protection>,
}

static SLAB: Mutex<Slab> = Mutex::new(Slab { free: Vec::new(), weakest: None });

/// A 32-byte key in a page that is kept from others.
pub struct LockedKey {
    /// `None` only while it drops.
    place: Option<Place>,
    protection: Protection,
}

impl LockedKey {
    /// Moves the key there; the given copy is wiped.
    pub fn new(key: Key) -> Result<Self, MemoryError> {
        let (place, protection) = slab().take()?;
        place.copy_from_slice(key.expose());
        Ok(Self { place: Some(place), protection })
    }

    /// The bytes, for the length of one call.
    pub fn expose(&self) -> &[u8; Key::LEN] {
        const EMPTY: &[u8; Key::LEN] = &[0; Key::LEN];
        // The fallback is for the type alone: nobody has a key while it drops.
        self.place.as_deref().unwrap_or(EMPTY)
    }

    /// A copy on the heap, for who wraps, exports or derives from it.
    pub fn copy(&self) -> Key {
        Key::of(self.expose())
    }

    /// What keeps it from others.
    pub fn protection(&self) -> Protection {
        self.protection
    }
}

impl Drop for LockedKey {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            place.zeroize();
            slab().free.push((place, self.protection));
        }
    }
}

impl Slab {
    fn take(&mut self) -> Result<(Place, Protection), MemoryError> {
        if self.free.is_empty() {
            self.grow()?;
        }
        self.free.pop().ok_or_else(|| MemoryError(std::io::ErrorKind::OutOfMemory.into()))
    }

    fn grow(&mut self) -> Result<Protection, MemoryError> {
        let (region, protection) = raw::pages(REGION_BYTES).map_err(MemoryError)?;
        // The kernel gives the pages now or never: not at a key's first byte.
        region.fill(0);
        let (places, _) = region.as_chunks_mut();
        self.free.extend(places.iter_mut().map(|place| (place, protection)));
        self.weakest = Some(self.weakest.map_or(protection, |weakest| weakest.min(protection)));
        Ok(protection)
    }
}

fn slab() -> MutexGuard<'static, Slab> {
    // A poisoned list still holds whole places.
    lock::lock(&SLAB)
}

pub(super) fn reserve() -> Result<Protection, MemoryError> {
    let slab = &mut *slab();
    slab.weakest.map_or_else(|| slab.grow(), Ok)
}

pub(super) fn weakest() -> Option<Protection> {
    slab().weakest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> LockedKey {
        LockedKey::new(Key::copy_of(&[byte; 32]).unwrap()).unwrap()
    }

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
            }
            if inside {
                found.push_str(line);
                found.push('\n');
            }
        }
        found
    }

    #[test]
    fn the_kernel_says_that_the_page_is_locked_and_left_out_of_dumps_and_children() {
        let key = key(7);
        assert_eq!(key.expose(), &[7; 32]);
        let smaps = smaps_of(key.expose().as_ptr() as usize);
        let flags = smaps.lines().find(|line| line.starts_with("VmFlags:")).unwrap();
        for flag in [" lo", " dd", " dc"] {
            assert!(flags.contains(flag), "{flag} in {flags}");
        }
        assert_eq!(smaps.contains("/secretmem"), key.protection() == Protection::Secret, "{smaps}");
        assert_ne!(key.protection(), Protection::Unlocked);
        assert!(weakest().is_some_and(|weakest| weakest <= key.protection()));
    }

    #[test]
    fn many_keys_share_pages_and_each_keeps_its_own_bytes() {
        let keys: Vec<LockedKey> = (0..1000_u32).map(|n| key(u8::try_from(n % 251).unwrap())).collect();
        for (n, key) in (0..).zip(&keys) {
            assert_eq!(key.expose(), &[u8::try_from(n % 251).unwrap(); 32], "key {n}");
        }
        let pages: std::collections::HashSet<_> =
            keys.iter().map(|key| key.expose().as_ptr() as usize / 4096).collect();
        // 1,000 keys fill eight pages of 4 KiB; other tests of this process may hold a place here and there.
        assert!(pages.len() <= 24, "{} pages", pages.len());
    }

    #[test]
    fn a_dropped_key_is_wiped_before_its_place_is_given_to_another() {
        drop((0..100).map(|_| key(9)).collect::<Vec<_>>());
        let slab = slab();
        // Other tests of this process take places and give them back at the same time: far fewer than a hundred.
        assert!(!slab.free.is_empty() && slab.free.iter().all(|(place, _)| **place == [0; 32]));
    }

    #[test]
    fn what_lies_before_and_behind_the_keys_may_not_be_touched() {
        let key = key(1);
        let address = key.expose().as_ptr() as usize;
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let lines: Vec<_> = maps.lines().filter_map(parse).collect();
        let (start, end, access) = lines.iter().find(|(start, end, _)| (*start..*end).contains(&address)).unwrap();
        assert!(access.starts_with("rw"), "{access}");
        for (guard, side) in [(start - 1, "before"), (*end, "behind")] {
            let guard = lines.iter().find(|(start, end, _)| (*start..*end).contains(&guard));
            assert!(guard.is_some_and(|(_, _, access)| access.starts_with("---")), "{side}: {guard:?}");
        }
    }

    fn parse(line: &str) -> Option<(usize, usize, String)> {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        Some((number(start)?, number(end)?, rest.split(' ').next()?.to_owned()))
    }
}
