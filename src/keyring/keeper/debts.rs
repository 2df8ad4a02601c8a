//! Copies of local KEKs by providers: which are there, which are owed, and what that means for texts that are out.
//!
//! A debt has two halves. The copy itself is made as soon as the provider is back. Texts that were given out before carry the copies
//! they were born with: they are counted, and nothing but a new KEK and a migration of the cluster's storage replaces them.

use std::collections::HashSet;
use std::time::Instant;

use super::handle::Purpose;
use super::{Keeper, trouble};
use crate::keyring::epoch::Reported;
use crate::keyring::error::KeeperError;
use crate::keyring::ring::KekState;
use crate::keyring::rooted::Rooted;
use crate::keyring::wraps_file::{self, WrapSet};
use crate::provider::Wrapped;
use crate::provider::set::Member;
use crate::store::{Disk, Kind};
use crate::types::KekId;

impl<D: Disk + Clone> Keeper<'_, D> {
    /// Whether the operator's rules let this KEK become active.
    pub(super) fn check_wraps(&self, kek: &KekId) -> Result<(), KeeperError> {
        let Some(rooted) = self.keyring.rooted().filter(|rooted| rooted.rules.local_kek) else { return Ok(()) };
        let owed = self.owed_for(&rooted, kek);
        match rooted.suffices(|name| !owed.iter().any(|owing| owing == name)) {
            true => Ok(()),
            false => Err(KeeperError::Unwrapped { kek: *kek, providers: owed.join(", ") }),
        }
    }

    pub(super) fn add_wraps(&mut self, kek: &KekId, wraps: Vec<Wrapped>) -> Result<(), KeeperError> {
        // What was destroyed while the providers were asked stays so: no copy of it may come back to the disk.
        if wraps.is_empty() || !self.keks.contains_key(kek) {
            return Ok(());
        }
        let mut set = self.wraps.get(kek).cloned().unwrap_or_default();
        wraps.into_iter().for_each(|wrap| set.add(wrap));
        // Texts that are out carry the copies they were born with.
        let is_pending = self.state.ring.pending().is_some_and(|pending| pending.id == *kek);
        match is_pending || (*kek == self.state.ring.active().id && self.has_no_text()) {
            true => set.born = set.wraps.len(),
            false => set.short = self.keks.get(kek).map_or(0, |live| live.uses.used()),
        }
        let mac_key = super::change::copy(&self.mac_key).ok_or(KeeperError::Locked)?;
        let bytes = set.encode(kek, &self.settings.cluster, &self.root_id, &mac_key);
        self.dir.replace(&wraps_file::file_name(kek), Kind::Wraps, &bytes).map_err(KeeperError::Store)?;
        self.wraps.insert(*kek, set);
        self.publish();
        Ok(())
    }

    /// Writing providers whose key has no copy of this KEK.
    pub(super) fn owed_for(&self, rooted: &Rooted, kek: &KekId) -> Vec<String> {
        let set = self.wraps.get(kek);
        let has = |member: &Member| {
            let identity = self.state.roots.record(member.name(), member.kind());
            let identity = identity.map(|record| &record.observed.current().identity);
            identity.is_some_and(|identity| set.is_some_and(|set| set.has(member.kind(), identity)))
        };
        rooted.providers.writers().filter(|member| !has(member)).map(|member| member.name().to_owned()).collect()
    }

    /// KEKs that should have copies, with those that owe one.
    pub(super) fn debts(&self) -> Vec<(KekId, Vec<String>)> {
        let Some(rooted) = self.keyring.rooted().filter(|rooted| rooted.rules.local_kek) else { return Vec::new() };
        let is_rooted = matches!(self.state.roots.reported, Reported::Epoch(_));
        let due = |(id, state): &(KekId, KekState)| match state {
            KekState::Active | KekState::PreActivation => is_rooted || self.wraps.contains_key(id),
            KekState::Deactivated => self.wraps.contains_key(id),
            KekState::Compromised | KekState::Destroyed => false,
        };
        let keks = self.state.ring.entries().map(|(entry, state)| (entry.id, state)).filter(due);
        let owed = keks.map(|(id, _)| (id, self.owed_for(&rooted, &id)));
        owed.filter(|(id, names)| !names.is_empty() && self.keks.contains_key(id)).collect()
    }

    /// Texts that are out with fewer copies of their KEK than there should be; an upper bound.
    pub(super) fn short_texts(&self) -> u64 {
        let open: HashSet<KekId> = self.debts().into_iter().map(|(id, _)| id).collect();
        let of = |id: &KekId| match open.contains(id) {
            true => self.keks.get(id).map_or(0, |live| live.uses.used()),
            false => self.wraps.get(id).map_or(0, |set| set.short),
        };
        let keks = self.state.ring.entries().filter(|(_, state)| *state != KekState::Destroyed);
        keks.map(|(entry, _)| of(&entry.id)).sum()
    }

    /// One KEK, and only with providers that seem to be well.
    pub(super) fn pay_a_debt(&mut self) {
        let Some(rooted) = self.keyring.rooted() else { return };
        if self.remote.debts_wait_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        let is_well = |name: &String| {
            let member = rooted.providers.members().iter().find(|member| member.name() == name);
            member.is_some_and(|member| member.health().failure.is_none() && self.remote.heard.contains(name))
        };
        let Some((kek, _)) = self.debts().into_iter().find(|(_, names)| names.iter().any(is_well)) else { return };
        if let Err(error) = self.wrap(&rooted, kek, Purpose::Debt) {
            trouble("complete the copies of a local KEK", &error);
        }
    }

    /// Reads what is on disk of the copies. What cannot be read is owed again.
    pub(super) fn load_wraps(&mut self) {
        let Some(mac_key) = super::change::copy(&self.mac_key) else { return };
        for id in self.keks.keys().copied().collect::<Vec<_>>() {
            let read = |_, bytes: &[u8]| WrapSet::decode(bytes, &id, &self.settings.cluster, &self.root_id, &mac_key);
            if let Ok(loaded) = self.dir.load(&wraps_file::file_name(&id), Kind::Wraps, read) {
                self.wraps.insert(id, loaded.value);
            }
        }
    }
}
