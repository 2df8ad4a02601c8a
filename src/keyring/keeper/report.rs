//! What the keeper tells of itself. Nothing here is secret, and nothing asks a device or a provider.

use super::Keeper;
use super::handle::{KekRow, KeyTable, Overview, RootsReport};
use crate::keyring::epoch::Reported;
use crate::keyring::error::KeeperError;
use crate::keyring::ring::{Entry, KekState};
use crate::seal::root::SealedRoot;
use crate::store::Disk;
use crate::types::{KekId, KeyId};

impl<D: Disk + Clone> Keeper<'_, D> {
    pub(super) fn overview(&self) -> Result<Overview, KeeperError> {
        let root = SealedRoot::load(&self.dir).map_err(KeeperError::Root)?.value;
        let keks = self.state.ring.entries().filter(|(_, state)| *state != KekState::Destroyed).count();
        Ok(Overview {
            keks,
            usable: self.keks.len(),
            backend: root.backend(),
            policy: root.policy,
            guarded: self.state.guard.is_some(),
            recipients: self.state.recipients.iter().map(ToString::to_string).collect(),
            roots: self.roots(),
        })
    }

    fn roots(&self) -> RootsReport {
        let owed: Vec<(KekId, Vec<String>)> = self.debts();
        RootsReport {
            records: self.state.roots.records.clone(),
            owed: owed.iter().map(|(_, names)| names.len()).sum(),
            short_texts: self.short_texts(),
            waits: self.waits().map(ToOwned::to_owned),
        }
    }

    pub(super) fn key_id(&self) -> KeyId {
        self.state.roots.reported.key_id(&self.settings.cluster, &self.state.ring.active().id)
    }

    pub(super) fn table(&self) -> KeyTable {
        let ring = &self.state.ring;
        let row = |(entry, state): (&Entry, KekState)| {
            let former = ring.former().iter().find(|former| former.entry.id == entry.id);
            let since = match state {
                KekState::Active => ring.activated(),
                KekState::PreActivation => entry.created,
                KekState::Deactivated | KekState::Compromised | KekState::Destroyed => {
                    former.map_or(0, |former| former.since)
                }
            };
            let live = self.keks.get(&entry.id).filter(|_| state == KekState::Active);
            KekRow {
                id: entry.id.to_string(),
                state: state.label().to_owned(),
                key_id: self.key_id_of(&entry.id, state),
                created: entry.created,
                since,
                uses: live.map_or(entry.uses_reserved, |kek| kek.uses.used()),
                shared: entry.shared,
                wraps: self.wraps.get(&entry.id).map_or(0, |set| set.wraps.len()),
            }
        };
        KeyTable { key_id: self.key_id().to_string(), keys: ring.entries().map(row).collect() }
    }

    /// A KEK that providers have wrapped has been reported under the key_ids of its time, which name no KEK.
    fn key_id_of(&self, id: &KekId, state: KekState) -> String {
        match (&self.state.roots.reported, state) {
            (Reported::Epoch(_), KekState::Active | KekState::PreActivation) => self.key_id().to_string(),
            _ if self.wraps.get(id).is_some_and(|set| !set.wraps.is_empty()) => String::new(),
            _ => KeyId::of_local_kek(&self.settings.cluster, id).to_string(),
        }
    }
}
