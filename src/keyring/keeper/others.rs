//! KEKs of other nodes that a provider has opened get a sealed copy here, so that the next start needs nobody for them.

use std::sync::Arc;
use std::time::Instant;

use super::books::{Change, NewKek};
use super::errands::{Errand, Slot};
use super::{Keeper, trouble};
use crate::audit::{Event, emit};
use crate::keyring::error::KeeperError;
use crate::keyring::kek_file::KekLabel;
use crate::keyring::kek_store::entry_of_another;
use crate::keyring::live::LiveKek;
use crate::keyring::state_file::State;
use crate::seal::root::NodeRoot;
use crate::store::Disk;
use crate::types::{KekId, Key};

const KEEP: &str = "seal a copy of another node's local KEK";
/// KEKs on disk, own and of others: sixteen nodes at four rotations a year for 64 years.
const KEPT_MAX: usize = 4096;

/// What waits for its sealed copy. Nothing leaves it before it has one, or must not have one.
#[derive(Default)]
pub(super) struct Others {
    waiting: Vec<Arc<LiveKek>>,
    is_full_told: bool,
}

impl Others {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn forget(&mut self, id: &KekId) {
        self.waiting.retain(|kek| kek.id != *id);
    }
}

impl<D: Disk + Clone> Keeper<'_, D> {
    /// A KEK of another node that a text has shown to be right. One of our own comes this way when its sealed copy is damaged: it
    /// gets a new one.
    pub(super) fn keep(&mut self, kek: Arc<LiveKek>) {
        let waits = self.others.waiting.iter().any(|waiting| waiting.id == kek.id);
        if self.keys.has(&kek.id) || waits || self.ring().is_destroyed(&kek.id) {
            return;
        }
        if self.ring().entries().count() + self.others.waiting.len() >= KEPT_MAX {
            if !std::mem::replace(&mut self.others.is_full_told, true) {
                emit(&Event::LimitReached { what: "local KEKs of other nodes", limit: KEPT_MAX });
            }
            return;
        }
        self.others.waiting.push(kek);
        self.errands.want(Errand::Keep);
    }

    /// Asks the device for the root, if there is something to seal.
    pub(super) fn keep_others(&mut self, now: Instant) {
        self.errands.want_if(Errand::Keep, !self.others.is_empty());
        if !self.errands.is_due(Errand::Keep, now) || !self.errands.is_free(Slot::Device) {
            return;
        }
        if let Err(error) = self.ask_for_errand(Errand::Keep) {
            self.keep_failed(&error);
        }
    }

    /// The device has answered.
    pub(super) fn kept(&mut self, root: Result<NodeRoot, KeeperError>) {
        let kept = root.and_then(|root| {
            self.check_root(&root)?;
            self.keep_all(&root)
        });
        match kept {
            Ok(()) => {
                self.errands.want_if(Errand::Keep, !self.others.is_empty());
                self.publish();
            }
            // Each stays in memory, and is tried again.
            Err(error) => self.keep_failed(&error),
        }
    }

    fn keep_failed(&mut self, error: &KeeperError) {
        self.errands.failed(Errand::Keep, Instant::now());
        trouble(KEEP, error);
    }

    fn keep_all(&mut self, root: &NodeRoot) -> Result<(), KeeperError> {
        let now = (self.settings.now)();
        let mut ring = self.ring().clone();
        // What was destroyed while the device was asked stays so.
        let keks: Vec<Arc<LiveKek>> =
            self.others.waiting.iter().filter(|kek| !ring.is_destroyed(&kek.id)).cloned().collect();
        let mut copies: Vec<(KekLabel, Key, bool)> = Vec::new();
        for kek in &keks {
            let own = ring.entries().find(|(entry, _)| entry.id == kek.id).map(|(entry, _)| entry.created);
            let label = KekLabel { id: kek.id, created: own.unwrap_or(now) };
            if own.is_none() {
                ring = ring.with_found(entry_of_another(&label), now);
            }
            copies.push((label, kek.copy_key(), own.is_some()));
        }
        // In memory first: the recovery file that comes with the change has them too.
        for ((label, key, is_own), kek) in copies.iter().zip(&keks) {
            match is_own {
                true => self.keys.take_in(label.id, key.duplicate(), &ring)?,
                false => self.keys.share(Arc::clone(kek)),
            }
        }
        let new = copies.iter().map(|(label, key, _)| NewKek { label: *label, key }).collect();
        let next = State { ring, ..self.state().clone() };
        let changed = self.change(Change { next, new: Some((root, new)), is_of_keys: true });
        match &changed {
            Ok(()) => {
                for kek in &keks {
                    self.others.forget(&kek.id);
                }
                let ring = self.ring().clone();
                self.others.waiting.retain(|kek| !ring.is_destroyed(&kek.id));
            }
            Err(_) => keks.iter().for_each(|kek| self.keys.drop_key(&kek.id)),
        }
        changed
    }
}
