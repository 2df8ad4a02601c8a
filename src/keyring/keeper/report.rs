//! What the keeper tells of itself. Nothing here is secret, and nothing asks a device or a provider.

use std::path::Path;
use std::time::UNIX_EPOCH;

use super::Keeper;
use super::request::{KekRow, KeyTable, Overview, ProvidersReport};
use crate::keyring::epoch::Reported;
use crate::keyring::error::KeeperError;
use crate::keyring::live::Told;
use crate::keyring::recovery;
use crate::keyring::ring::{Entry, KekState};
use crate::seal::root::SealedRoot;
use crate::store::Disk;
use crate::types::clock::UnixSeconds;
use crate::types::{KekId, KeyId, SealPolicy};

impl<D: Disk + Clone> Keeper<'_, D> {
    pub(super) fn overview(&self) -> Result<Overview, KeeperError> {
        // A disk that went away under a running node takes nothing from what is in memory.
        let root = SealedRoot::load(&self.books.home.root).ok().map(|loaded| loaded.value);
        let blob = root.as_ref().map_or(&self.derived.pin, |root| &root.blob);
        let stored = root.as_ref().map_or(SealPolicy::None, |root| root.policy);
        let shown = self.ring().entries().filter(|(entry, _)| !self.state().is_placeholder(&entry.id));
        let keks = shown.filter(|(_, state)| *state != KekState::Destroyed).count();
        let awaits_bundle = self.state().awaits_bundle;
        Ok(Overview {
            keks,
            usable: self.keys.count(),
            backend: blob.backend(),
            policy: blob.policy().unwrap_or(stored),
            would_open: !self.books.home.is_unsure && self.check.last().is_none_or(|last| last.opens),
            guarded: self.state().guard.is_some(),
            awaits_bundle,
            is_overdue: !awaits_bundle && self.is_overdue(),
            due: (!awaits_bundle).then(|| self.settings.max_age.due(self.ring())),
            rotates_by_itself: !self.needs_sharing(),
            pending: self
                .ring()
                .pending()
                .map(|entry| self.row_of(entry, KekState::PreActivation, &self.keyring.told())),
            is_clock_doubted: self.is_clock_doubted(),
            is_recovery_owed: self.books.is_recovery_owed,
            rehearsed: self.evidence.rehearsed,
            rehearsal_lacks_kek: self.evidence.rehearsed.is_some_and(|at| {
                let mut living = self.ring().entries().filter(|(_, state)| *state != KekState::Destroyed);
                living.any(|(entry, _)| entry.created > at)
            }),
            scanned: self.evidence.last_whole().map(|scan| scan.at),
            recovery_written: written(&self.books.home.top.path().join(recovery::FILE)),
            recipients: self.state().recipients.iter().map(ToString::to_string).collect(),
            recovery_maker: self.books.maker()?.maker().fingerprint(),
            roots: self.roots(),
        })
    }

    fn roots(&self) -> ProvidersReport {
        let owed: Vec<(KekId, Vec<String>)> = self.debts();
        ProvidersReport {
            records: self.state().roots.records.clone(),
            owed: owed.iter().map(|(_, names)| names.len()).sum(),
            short_texts: self.short_texts(),
            waits: self.waits().map(ToOwned::to_owned),
            lost: self.lost_openers(),
            epoch: self.epoch_reported(),
            epoch_turns: self.epoch_turns(),
        }
    }

    pub(super) fn key_id(&self) -> KeyId {
        self.state().roots.reported.key_id(&self.settings.cluster, &self.ring().active().id)
    }

    /// Empty for a node that waits for a bundle.
    fn reported_key_id(&self) -> String {
        if self.state().awaits_bundle { String::new() } else { self.key_id().to_string() }
    }

    pub(super) fn table(&self) -> KeyTable {
        let shown = self.ring().entries().filter(|(entry, _)| !self.state().is_placeholder(&entry.id));
        let told = self.keyring.told();
        let keys = shown.map(|(entry, state)| self.row_of(entry, state, &told)).collect();
        KeyTable { key_id: self.reported_key_id(), keys }
    }

    fn row_of(&self, entry: &Entry, state: KekState, told: &Told) -> KekRow {
        let ring = self.ring();
        let former = ring.former().iter().find(|former| former.entry.id == entry.id);
        let since = match state {
            KekState::Active => ring.activated(),
            KekState::PreActivation => entry.created,
            KekState::Deactivated | KekState::Compromised | KekState::Destroyed => {
                former.map_or(0, |former| former.since)
            }
        };
        let live = self.keys.get(&entry.id).filter(|_| state == KekState::Active);
        KekRow {
            id: entry.id.to_string(),
            state: state.label().to_owned(),
            key_id: self.key_id_of(&entry.id, state),
            created: entry.created,
            since,
            uses: live.map_or(entry.uses_reserved, |kek| kek.uses.used()),
            shared: entry.shared,
            check: self.keys.get(&entry.id).map_or_else(String::new, |kek| kek.check().to_hex()),
            must_be_shared: state == KekState::PreActivation && !entry.shared && self.needs_sharing(),
            opened: told.opened.get(&entry.id).copied(),
            may_return: ring.may_return(&entry.id),
            under_key_id: self.is_under_key_id(&entry.id),
            objects: self.evidence.objects_under(&entry.id),
            scanned: self.evidence.last_whole().map(|scan| scan.at),
            unneeded_since: self.evidence.unneeded_since(&entry.id, self.written_until(&entry.id)),
            written_until: self.written_until(&entry.id),
            wraps: self.keys.wraps(&entry.id).map_or(0, |set| set.wraps.len()),
        }
    }

    /// A KEK that providers have wrapped has been reported under the key_ids of its time, which name no KEK.
    fn key_id_of(&self, id: &KekId, state: KekState) -> String {
        match (&self.state().roots.reported, state) {
            (Reported::Epoch(_), KekState::Active | KekState::PreActivation) => self.key_id().to_string(),
            _ if self.keys.wraps(id).is_some_and(|set| !set.wraps.is_empty()) => String::new(),
            _ => KeyId::of_local_kek(&self.settings.cluster, id).to_string(),
        }
    }
}

/// When a file was written last.
fn written(path: &Path) -> Option<UnixSeconds> {
    let written = std::fs::metadata(path).and_then(|meta| meta.modified()).ok()?;
    Some(written.duration_since(UNIX_EPOCH).ok()?.as_secs())
}
