//! Marking, giving up and destroying KEKs by the operator's order. A pending KEK that other nodes have is never destroyed: they may
//! turn to it at any time.

use super::books::Change;
use super::errands::Slot;
use super::{Exporter, Keeper, KeyTable, Proof};
use crate::audit::{Event, emit};
use crate::keyring::epoch::Reported;
use crate::keyring::error::KeeperError;
use crate::keyring::evidence::Subject;
use crate::keyring::ring::{Entry, KekState, MoveError, RetireTo};
use crate::keyring::{kek_file, wraps_file};
use crate::store::Disk;
use crate::types::KekId;

impl<D: Disk + Clone> Keeper<'_, D> {
    pub(super) fn retire(&mut self, id: &KekId, to: RetireTo, proof: Proof) -> Result<KeyTable, KeeperError> {
        let destroys = to.destroys();
        match self.ring().retire(id, to, (self.settings.now)()) {
            // The record first: a power cut must not leave a ring that counts on a file that is gone.
            Ok(ring) => {
                let is_pending = self.ring().pending().is_some_and(|entry| entry.id == *id);
                if self.ring().may_return(id) && !to.passes_over_others(is_pending) {
                    return Err(KeeperError::PendingElsewhere(*id));
                }
                if destroys && self.is_under_key_id(id) {
                    return Err(KeeperError::UnderKeyId(*id));
                }
                if destroys {
                    self.check_nothing_is_kept()?;
                    self.check_proof(id, proof)?;
                }
                self.change(Change::of_keys(self.state().with_ring(ring)))?;
            }
            // The record is there, and the disk has not let go of the file.
            Err(MoveError::Destroyed) if destroys && self.is_undestroyed(id)? => {}
            Err(error) => return Err(KeeperError::Move(error)),
        }
        let state = match to {
            RetireTo::Compromised => KekState::Compromised,
            RetireTo::GivenUp => KekState::Deactivated,
            RetireTo::Destroyed | RetireTo::GoneEverywhere => {
                self.keys.undestroyed.insert(*id);
                self.keys.forget(id);
                self.foreign.forget(id);
                self.publish();
                let exporter = Exporter { settings: self.settings, keys: &self.keys };
                let forgotten = self.books.forget_in_recovery_files(|state| exporter.export(state));
                // Whatever can go goes.
                let gone = self.destroy_files(id).and(forgotten);
                gone.map_err(|source| KeeperError::NotGone { kek: *id, source: Box::new(source) })?;
                self.keys.undestroyed.remove(id);
                KekState::Destroyed
            }
        };
        self.publish();
        emit(&Event::KeyRetired { kek: id, state: state.label() });
        Ok(self.table())
    }

    /// Nothing stored needs it, as far as was seen. One that has encrypted nothing, here or elsewhere, needs no proof.
    fn check_proof(&self, id: &KekId, proof: Proof) -> Result<(), KeeperError> {
        let unused = |entry: &Entry| entry.id == *id && entry.uses_reserved == 0 && !entry.shared;
        if self.ring().entries().any(|(entry, _)| unused(entry)) {
            return Ok(());
        }
        match proof {
            Proof::Waived => {
                emit(&Event::KeyRetiredWithoutScan { kek: id });
                Ok(())
            }
            Proof::Scan { backups_since } => self
                .evidence
                .proves(Subject::Kek(id), self.ring().activated(), backups_since, (self.settings.now)())
                .map_err(|why| KeeperError::NoProof { kek: *id, why }),
        }
    }

    /// It was active under the key_id of providers' keys that is reported now. kube-apiserver keeps its seed for as long as the key_id is the
    /// same, and writes with it, and a migration leaves what is under the same key_id as it is.
    pub(super) fn is_under_key_id(&self, id: &KekId) -> bool {
        if self.state().roots.reported == Reported::LocalKek {
            return false;
        }
        let former = self.ring().former();
        let place = |id: &KekId| former.iter().position(|former| former.entry.id == *id);
        let Some(at) = place(id).filter(|at| former[*at].entry.uses_reserved > 0) else { return false };
        match &self.state().first_under_key_id {
            // Each that served may be.
            None => true,
            // The order is that in which they ceased to be active.
            Some(first) => place(first).is_some_and(|first| at >= first),
        }
    }

    /// A folder of an earlier root has its KEKs, and its recovery file.
    fn check_nothing_is_kept(&mut self) -> Result<(), KeeperError> {
        let is_free = self.errands.is_free(Slot::Device);
        // Known for sure, or nothing is removed.
        self.books.folder()?;
        let home = &mut self.books.home;
        if home.has_left() {
            // Another root may be in the making, half of which would be removed.
            if !is_free {
                return Err(KeeperError::Busy);
            }
            home.tidy().map_err(KeeperError::Store)?;
        }
        match home.kept().map_err(KeeperError::Store)? {
            Some(name) => Err(KeeperError::KeptFolder(home.top.path().join(name))),
            None => Ok(()),
        }
    }

    /// Whether something of a KEK that is recorded as destroyed could not be removed.
    fn is_undestroyed(&self, id: &KekId) -> Result<bool, KeeperError> {
        let dir = &self.books.home.root;
        let is_there = |name: String| dir.exists(&name).map_err(KeeperError::Store);
        Ok(self.keys.undestroyed.contains(id)
            || is_there(kek_file::file_name(id))?
            || is_there(wraps_file::file_name(id))?)
    }

    /// The sealed copy, and the copies by providers.
    pub(super) fn destroy_files(&self, id: &KekId) -> Result<(), KeeperError> {
        let dir = &self.books.home.root;
        for file in [kek_file::file_name(id), wraps_file::file_name(id)] {
            if dir.exists(&file).map_err(KeeperError::Store)? {
                dir.destroy(&file).map_err(KeeperError::Store)?;
            }
        }
        Ok(())
    }
}
