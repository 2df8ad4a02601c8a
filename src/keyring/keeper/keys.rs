//! KEKs in memory, with the copies of them that providers have made. What is here is safe on disk, or came from a provider.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::audit::{Event, emit};
use crate::keyring::error::KeeperError;
use crate::keyring::kek_file::KekLabel;
use crate::keyring::live::LiveKek;
use crate::keyring::ring::Ring;
use crate::keyring::uses::{self, UseCounter};
use crate::keyring::wraps_file::WrapSet;
use crate::sandbox::Protection;
use crate::sandbox::memory::LockedKey;
use crate::types::{KekId, Key};

/// See the module.
#[derive(Default)]
pub(super) struct Keys {
    live: HashMap<KekId, Arc<LiveKek>>,
    wraps: HashMap<KekId, WrapSet>,
    /// Recorded as destroyed, and the disk has not let go of their files.
    pub(super) undestroyed: HashSet<KekId>,
}

impl Keys {
    pub(super) fn has(&self, id: &KekId) -> bool {
        self.live.contains_key(id)
    }

    pub(super) fn get(&self, id: &KekId) -> Option<&Arc<LiveKek>> {
        self.live.get(id)
    }

    pub(super) fn count(&self) -> usize {
        self.live.len()
    }

    pub(super) fn ids(&self) -> Vec<KekId> {
        self.live.keys().copied().collect()
    }

    /// Takes a KEK into locked memory. `ring` says how often it may have been used.
    pub(super) fn take_in(&mut self, id: KekId, key: Key, ring: &Ring) -> Result<(), KeeperError> {
        let key = LockedKey::new(key).map_err(KeeperError::Memory)?;
        if key.protection() == Protection::Unlocked {
            emit(&Event::MemoryUnlocked);
        }
        let entry = ring.entries().find(|(entry, _)| entry.id == id).map(|(entry, _)| entry);
        let (used, shared) = entry.map_or((0, false), |entry| (entry.uses_reserved, entry.shared));
        let counter = UseCounter::new(used, used, uses::hard_limit(shared));
        self.live.insert(id, Arc::new(LiveKek::new(id, key, counter)));
        Ok(())
    }

    /// All of these, or none.
    pub(super) fn take_in_all(&mut self, all: &[(KekLabel, Key)], ring: &Ring) -> Result<(), KeeperError> {
        let taken = all.iter().try_for_each(|(label, key)| {
            let key = key.duplicate();
            self.take_in(label.id, key, ring)
        });
        if taken.is_err() {
            all.iter().for_each(|(label, _)| self.drop_key(&label.id));
        }
        taken
    }

    /// A KEK that is in memory already.
    pub(super) fn share(&mut self, kek: Arc<LiveKek>) {
        self.live.insert(kek.id, kek);
    }

    /// Forgets a KEK, and not its copies.
    pub(super) fn drop_key(&mut self, id: &KekId) {
        self.live.remove(id);
    }

    /// Forgets a KEK and its copies.
    pub(super) fn forget(&mut self, id: &KekId) {
        self.live.remove(id);
        self.wraps.remove(id);
    }

    pub(super) fn wraps(&self, id: &KekId) -> Option<&WrapSet> {
        self.wraps.get(id)
    }

    pub(super) fn set_wraps(&mut self, id: KekId, set: WrapSet) {
        self.wraps.insert(id, set);
    }

    /// For a snapshot: nothing that the ring calls destroyed, whatever way it came.
    pub(super) fn usable(&self, ring: &Ring) -> HashMap<KekId, Arc<LiveKek>> {
        let all = self.live.iter().filter(|(id, _)| !ring.is_destroyed(id));
        all.map(|(id, kek)| (*id, Arc::clone(kek))).collect()
    }
}
