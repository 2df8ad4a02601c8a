//! KEKs of other nodes that a provider has opened get a sealed copy here, so that the next start needs nobody for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::handle::Purpose;
use super::{Keeper, trouble};
use crate::keyring::error::KeeperError;
use crate::keyring::live::LiveKek;
use crate::keyring::{kek_file, open};
use crate::seal::root::NodeRoot;
use crate::store::Disk;

const KEEP: &str = "seal a copy of another node's local KEK";
/// KEKs on disk, own and foreign: sixteen nodes at four rotations a year for 64 years.
const KEPT_MAX: usize = 4096;
/// After the device has failed.
const RETRY: Duration = Duration::from_secs(60);

impl<D: Disk + Clone> Keeper<'_, D> {
    /// A KEK of another node that a text has shown to be right.
    pub(super) fn keep(&mut self, kek: Arc<LiveKek>) -> bool {
        // One of our own comes this way when its sealed copy is damaged: it gets a new one.
        let known = self.keks.contains_key(&kek.id) || self.to_keep.iter().any(|waiting| waiting.id == kek.id);
        if !known && self.state.ring.entries().count() + self.to_keep.len() < KEPT_MAX {
            self.to_keep.push(kek);
        }
        self.keep_foreign();
        true
    }

    /// Asks the device for the root, if there is something to seal.
    pub(super) fn keep_foreign(&mut self) {
        let waits = self.keep_retry.is_some_and(|at| Instant::now() < at);
        if self.to_keep.is_empty() || self.device_is_asked || waits {
            return;
        }
        if let Err(error) = self.run_errand(Purpose::Keep) {
            trouble(KEEP, &error);
        }
    }

    /// The device has answered.
    pub(super) fn kept(&mut self, root: Result<NodeRoot, KeeperError>) {
        let root = match root.and_then(|root| self.check_root(&root).map(|()| root)) {
            Ok(root) => root,
            Err(error) => {
                self.keep_retry = Some(Instant::now() + RETRY);
                return trouble(KEEP, &error);
            }
        };
        self.keep_retry = None;
        let keks = std::mem::take(&mut self.to_keep);
        let keep_all = || {
            let now = (self.settings.now)();
            let mut ring = self.state.ring.clone();
            for kek in keks {
                let key = kek.copy_key().ok_or(KeeperError::Locked)?;
                let own = ring.entries().find(|(entry, _)| entry.id == kek.id).map(|(entry, _)| entry.created);
                let label = kek_file::KekLabel { id: kek.id, created: own.unwrap_or(now) };
                open::save_kek(&self.dir, &self.settings.cluster, &root, &label, &key)?;
                match own {
                    Some(_) => self.take_in(kek.id, key)?,
                    None => {
                        ring = ring.with_found(open::foreign_entry(&label), now);
                        self.keks.insert(kek.id, kek);
                    }
                }
            }
            self.change(ring)
        };
        match keep_all() {
            Ok(()) => self.publish(),
            // Each stays in memory, and is opened by a provider after the next start.
            Err(error) => trouble(KEEP, &error),
        }
    }
}
