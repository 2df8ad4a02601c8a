//! Marking, giving up and destroying KEKs by the operator's order. A pending KEK that other nodes have is never destroyed: they may
//! turn to it at any time.

use std::time::Instant;

use super::books::Change;
use super::errands::Slot;
use super::rotation::FUTURE_SECONDS;
use super::{Exporter, Keeper, KeyTable, Proof};
use crate::audit::{Event, emit};
use crate::keyring::epoch::Reported;
use crate::keyring::error::KeeperError;
use crate::keyring::evidence::{NoProof, Subject};
use crate::keyring::ring::{Entry, Former, KekState, MoveError, RetireTo};
use crate::keyring::{kek_file, wraps_file};
use crate::store::Disk;
use crate::types::KekId;
use crate::types::clock::UnixSeconds;

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
                if destroys && !to.passes_over_others(is_pending) && self.is_shared(id) {
                    return Err(KeeperError::InUseElsewhere(*id));
                }
                if destroys && self.is_under_key_id(id) {
                    return Err(KeeperError::UnderKeyId(*id));
                }
                if destroys {
                    self.check_nothing_is_kept()?;
                    self.check_proof(id, proof)?;
                }
                let is_waived = destroys && proof == Proof::Waived && !self.is_without_use(id);
                self.change(Change::of_keys(self.state().with_ring(ring)))?;
                if is_waived {
                    emit(&Event::KeyRetiredWithoutScan { kek: id });
                }
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
                self.others.forget(id);
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

    fn is_without_use(&self, id: &KekId) -> bool {
        let unused = |entry: &Entry| entry.id == *id && entry.uses_reserved == 0 && !entry.shared;
        self.ring().entries().any(|(entry, _)| unused(entry))
    }

    fn is_shared(&self, id: &KekId) -> bool {
        self.ring().entries().any(|(entry, _)| entry.id == *id && entry.shared)
    }

    /// Nothing stored needs it, as far as was seen. One that has encrypted nothing, here or elsewhere, needs no proof.
    fn check_proof(&self, id: &KekId, proof: Proof) -> Result<(), KeeperError> {
        if self.is_without_use(id) {
            return Ok(());
        }
        match proof {
            Proof::Waived => Ok(()),
            Proof::Scan { backups_since } => self
                .evidence
                .proves(Subject::Kek(id), self.written_until(id), backups_since, (self.settings.now)())
                .map_err(|why| KeeperError::NoProof { kek: *id, why }),
        }
    }

    /// It was active under the key_id of providers' keys that is reported now, or may have been on another node, which reports the same.
    /// kube-apiserver keeps its seed for as long as the key_id is the same, and writes with it, and a migration leaves what is under the
    /// same key_id as it is.
    pub(super) fn is_under_key_id(&self, id: &KekId) -> bool {
        let ring = self.ring();
        let served =
            |former: &Former| former.entry.id == *id && (former.entry.uses_reserved > 0 || former.entry.shared);
        self.state().roots.reported != Reported::LocalKek
            && ring.former().iter().any(served)
            && !self.state().key_id_began.is_after(id, ring)
    }

    /// Since when, at the latest, kube-apiserver is told what it is told now: the key_id, and with it the active KEK.
    pub(super) fn turned(&self) -> UnixSeconds {
        let now = (self.settings.now)();
        let ago = |at: Instant| now.saturating_sub(at.elapsed().as_secs());
        let began = match self.state().key_id_began.at {
            // Of an earlier release, or of a node that never had providers.
            0 if self.state().roots.reported != Reported::LocalKek => ago(self.started),
            // By a clock that ran ahead.
            began if began > now.saturating_add(FUTURE_SECONDS) => ago(self.started),
            began => began,
        };
        // The clock may have been behind when it happened. How long ago that was is known without it.
        let known = self.ring().activated().max(began);
        self.turned.map_or(known, |at| known.max(ago(at)))
    }

    /// Nothing stored is of another plugin, as far as was seen since somebody is handed it.
    pub(super) fn prove_foreign(&self, backups_since: Option<UnixSeconds>) -> Result<(), NoProof> {
        let now = (self.settings.now)();
        // A clock that ran ahead then is no reason to wait until that time.
        let handed = self.foreign_since.min(now);
        self.evidence.proves(Subject::Foreign, self.turned().max(handed), backups_since, now)
    }

    /// Until when kube-apiserver may have been told to write under this KEK. One that was never active here is written under elsewhere: by
    /// when it came, other scans had already seen nothing of it.
    pub(super) fn written_until(&self, id: &KekId) -> UnixSeconds {
        let latest = (self.settings.now)().saturating_add(FUTURE_SECONDS);
        let came = self.ring().former().iter().find(|former| former.entry.id == *id && former.entry.uses_reserved == 0);
        // By a clock that ran ahead.
        let came = came.map(|former| former.since).filter(|since| *since <= latest);
        self.turned().max(came.unwrap_or_default())
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
