//! Copies of local KEKs by providers: which are there, which are owed, how they are asked for, and what that means for texts that
//! are out.
//!
//! A debt has two halves. The copy itself is made as soon as the provider is back. Texts that were given out before carry the copies
//! they were born with: they are counted, and nothing but a new KEK and a migration of the cluster's storage replaces them.
//!
//! No question is waited for: each runs on the providers' runtime, and its answer comes back as an arrival. One at a time.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::arrival::{Arrival, Message, WrapFor};
use super::errands::{Errand, Holder, Slot};
use super::{Keeper, trouble};
use crate::audit::{Event, emit};
use crate::keyring::epoch::Reported;
use crate::keyring::error::KeeperError;
use crate::keyring::ring::KekState;
use crate::keyring::rooted::Rooted;
use crate::keyring::wraps_file::{self, WrapSet};
use crate::provider::set::{Fingerprint, Member, Specimen, WrapContext, WrapOutcome};
use crate::provider::{KeyIdentity, Wrapped};
use crate::store::{Disk, Kind, LoadError};
use crate::types::{KekId, Key};

/// Between two attempts at copies that are owed.
const PAUSE: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(10) };

/// Between two that are paid.
const BREATH: Duration = if cfg!(test) { Duration::from_millis(5) } else { Duration::from_secs(1) };

impl<D: Disk + Clone> Keeper<'_, D> {
    /// Whether the operator's rules let this KEK become active.
    pub(super) fn check_wraps(&self, kek: &KekId) -> Result<(), KeeperError> {
        let Some(rooted) = self.keyring.writing().filter(|rooted| rooted.rules.local_kek) else { return Ok(()) };
        let set = self.keys.wraps(kek);
        let has = |kind, key: &KeyIdentity| set.is_some_and(|set| set.has(kind, key));
        if rooted.suffices(|member| self.key_of(member), has) {
            return Ok(());
        }
        let providers = match self.owed_for(&rooted, kek) {
            owed if owed.is_empty() => "providers with other keys, of which `write.min_wraps` asks for more".to_owned(),
            owed => owed.join(", "),
        };
        Err(KeeperError::Unwrapped { kek: *kek, providers })
    }

    /// The key that a provider counts as a way to.
    pub(super) fn key_of(&self, member: &Member) -> Option<KeyIdentity> {
        if member.is_twin() {
            return None;
        }
        self.state().roots.record(member.name(), member.kind()).map(|record| record.identity().clone())
    }

    fn add_wraps(&mut self, kek: &KekId, wraps: Vec<Wrapped>) -> Result<(), KeeperError> {
        // What was destroyed while the providers were asked stays so: no copy of it may come back to the disk.
        if wraps.is_empty() || !self.keys.has(kek) {
            return Ok(());
        }
        let mut set = self.keys.wraps(kek).cloned().unwrap_or_default();
        wraps.into_iter().for_each(|wrap| set.add(wrap));
        // Texts that are out carry the copies they were born with.
        let is_pending = self.ring().pending().is_some_and(|pending| pending.id == *kek);
        match is_pending || (*kek == self.ring().active().id && self.has_no_text()) {
            true => set.born = set.wraps.len(),
            false => set.short = self.keys.get(kek).map_or(0, |live| live.uses.used()),
        }
        self.save_wraps(kek, &set)?;
        self.keys.set_wraps(*kek, set);
        self.publish();
        Ok(())
    }

    /// Both generations: written once in the life of a KEK as a rule, and texts are born without copies where it is lost.
    fn save_wraps(&mut self, kek: &KekId, set: &WrapSet) -> Result<(), KeeperError> {
        let mac_key = self.books.mac_key().copy();
        let bytes = set.encode(kek, &self.settings.cluster, &self.books.root_id(), &mac_key);
        let dir = self.books.folder()?;
        dir.replace_both(&wraps_file::file_name(kek), Kind::Wraps, &bytes).map_err(KeeperError::Store)
    }

    /// Of each key of a provider, something that it has made: a copy of a local KEK, that of the active one first, or what somebody has opened
    /// last.
    pub(super) fn specimens(&self) -> Vec<Specimen> {
        let mut seen = HashSet::new();
        let active = self.ring().active().id;
        let mut ids = vec![active];
        ids.extend(self.keys.ids().into_iter().filter(|id| *id != active));
        let cluster = &self.settings.cluster;
        let of_copies = ids.iter().filter_map(|id| self.keys.get(id)).flat_map(|kek| {
            let (of, key) = (WrapContext { cluster: cluster.clone(), kek: kek.id }, Fingerprint::of(&kek.copy_key()));
            let wraps = self.keys.wraps(&kek.id).into_iter().flat_map(|set| set.wraps.iter().cloned());
            wraps.map(move |wrap| Specimen::kept(wrap, of.clone(), key))
        });
        let running = self.keyring.rooted();
        let opened = running.iter().flat_map(|rooted| rooted.providers.members()).filter_map(Member::specimen);
        let all = of_copies.chain(opened);
        all.filter(|specimen| seen.insert((specimen.wrap.kind, specimen.wrap.identity.clone()))).collect()
    }

    /// Writing providers whose key has no copy of this KEK: all ways to it.
    fn owing<'r>(&self, rooted: &'r Rooted, kek: &KekId) -> Vec<(&'r Member, Option<KeyIdentity>)> {
        let set = self.keys.wraps(kek);
        let with_key = rooted.providers.writers().map(|member| (member, self.key_of(member)));
        let has = |member: &Member, key: &KeyIdentity| set.is_some_and(|set| set.has(member.kind(), key));
        with_key.filter(|(member, key)| !key.as_ref().is_some_and(|key| has(member, key))).collect()
    }

    /// Whether what was made was not what is owed: the provider turned to another key.
    fn is_owing(&self, kek: &KekId) -> bool {
        self.keyring.rooted().is_some_and(|rooted| !self.owing(&rooted, kek).is_empty())
    }

    /// The same, one name for each key.
    pub(super) fn owed_for(&self, rooted: &Rooted, kek: &KekId) -> Vec<String> {
        let mut seen = HashSet::new();
        let owing = self.owing(rooted, kek).into_iter();
        let first = owing.filter(|(member, key)| key.is_none() || seen.insert((member.kind(), key.clone())));
        first.map(|(member, _)| member.name().to_owned()).collect()
    }

    /// KEKs that should have copies, with those that owe one.
    pub(super) fn debts(&self) -> Vec<(KekId, Vec<String>)> {
        let Some(rooted) = self.keyring.rooted().filter(|rooted| rooted.rules.local_kek) else { return Vec::new() };
        let is_rooted = matches!(self.state().roots.reported, Reported::Epoch(_));
        let due = |(id, state): &(KekId, KekState)| match state {
            KekState::Active | KekState::PreActivation => is_rooted || self.keys.wraps(id).is_some(),
            KekState::Deactivated => self.keys.wraps(id).is_some(),
            KekState::Compromised | KekState::Destroyed => false,
        };
        let keks = self.ring().entries().map(|(entry, state)| (entry.id, state)).filter(due);
        let owed = keks.map(|(id, _)| (id, self.owed_for(&rooted, &id)));
        owed.filter(|(id, names)| !names.is_empty() && self.keys.has(id)).collect()
    }

    /// Whether other nodes are told the same key_id, and nothing that is under this KEK brings a copy. So it is in mode "direct", while no
    /// provider writes and the key_id could not move at once. Not once one writes again: what a node encrypted under a key_id of its own
    /// before its first provider is short of nothing, and looks the same.
    fn is_bare(&self, kek: &KekId) -> bool {
        let is_direct = self.keyring.rooted().is_some_and(|rooted| !rooted.rules.local_kek && !rooted.writes());
        let is_shared = matches!(self.state().roots.reported, Reported::Epoch(_));
        is_direct && is_shared && *kek == self.ring().active().id && self.keys.wraps(kek).is_none()
    }

    /// Texts that are out with fewer copies of their KEK than there should be; an upper bound.
    pub(super) fn short_texts(&self) -> u64 {
        let open: HashSet<KekId> = self.debts().into_iter().map(|(id, _)| id).collect();
        let of = |id: &KekId| match open.contains(id) || self.is_bare(id) {
            true => self.keys.get(id).map_or(0, |live| live.uses.used()),
            false => self.keys.wraps(id).map_or(0, |set| set.short),
        };
        let keks = self.ring().entries().filter(|(_, state)| *state != KekState::Destroyed);
        keks.map(|(entry, _)| of(&entry.id)).sum()
    }

    /// One KEK, and only with providers that seem to be well.
    pub(super) fn pay_a_debt(&mut self, now: Instant) {
        let Some(rooted) = self.keyring.rooted() else { return };
        let is_well = |member: &Member| member.health().failure.is_none() && self.probes.heard.contains(member.name());
        let may_be_paid = |kek: &KekId| self.owing(&rooted, kek).iter().any(|(member, _)| is_well(member));
        let next = self.debts().into_iter().find(|(kek, _)| may_be_paid(kek));
        self.errands.want_if(Errand::Copies, next.is_some());
        let Some((kek, _)) = next else { return };
        if !self.errands.is_due(Errand::Copies, now) || !self.errands.is_free(Slot::Providers) {
            return;
        }
        if let Err(error) = self.wrap(&rooted, kek, WrapFor::Errand(Errand::Copies)) {
            self.errands.failed(Errand::Copies, now);
            trouble(COPIES, &error);
        }
    }

    /// Asks those that have not wrapped this KEK yet. The caller has seen that they are free.
    pub(super) fn wrap(&mut self, rooted: &Arc<Rooted>, kek: KekId, purpose: WrapFor) -> Result<(), KeeperError> {
        let owed: HashSet<String> =
            self.owing(rooted, &kek).into_iter().map(|(member, _)| member.name().to_owned()).collect();
        let key = self.keys.get(&kek).map(|live| live.copy_key()).ok_or(KeeperError::NotOpened(kek))?;
        let holder = match &purpose {
            WrapFor::Errand(errand) => Holder::Errand(*errand),
            WrapFor::Rotation(_) => Holder::Operator,
        };
        self.errands.begin(Slot::Providers, holder).map_err(|_| KeeperError::Busy)?;
        let (providers, own) = (rooted.providers.clone(), self.own.clone());
        let of = WrapContext { cluster: self.settings.cluster.clone(), kek };
        rooted.runtime.spawn(async move {
            let key: Key = key;
            let outcome = providers.wrap_by(&key, &of, |member: &Member| owed.contains(member.name())).await;
            // Fails only when the keeper has stopped.
            let _ = own.send(Message::Arrival(Arrival::Wrapped(kek, Box::new(outcome), purpose)));
        });
        Ok(())
    }

    /// The providers have answered.
    pub(super) fn wrapped(&mut self, kek: KekId, outcome: WrapOutcome, purpose: WrapFor) {
        self.errands.end(Slot::Providers);
        let WrapOutcome { wraps, owed } = outcome;
        let seen: Vec<_> = wraps.iter().map(|(name, wrap)| (name.clone(), wrap.key_state())).collect();
        let stored = self.add_wraps(&kek, wraps.into_iter().map(|(_, wrap)| wrap).collect());
        self.observe(seen);
        let is_owed = !owed.is_empty() || stored.is_err() || self.is_owing(&kek);
        for refusal in owed {
            emit(&Event::WrapOwed { kek: &kek, provider: &refusal.provider, error: &refusal.error.to_string() });
        }
        match purpose {
            WrapFor::Errand(Errand::KeyId) => {
                let enough = stored.and_then(|()| self.check_wraps(&kek));
                self.wrapped_for_key_id(kek, enough);
            }
            WrapFor::Errand(Errand::Rotate) => {
                let enough = stored.and_then(|()| self.check_wraps(&kek));
                self.wrapped_for_rotation(&kek, enough);
            }
            WrapFor::Errand(_) => {
                if let Err(error) = stored {
                    trouble(COPIES, &error);
                }
                // A rotation has failed for want of it, perhaps.
                if !is_owed {
                    self.errands.hurry(Errand::Rotate);
                }
                // Whoever limits us, or lies, is not away: without a pause it would be asked again at once. Nor does a debt that is
                // paid lead to the next one in the same moment, whatever made that.
                self.errands.rest(Errand::Copies, Instant::now(), if is_owed { PAUSE } else { BREATH });
            }
            // Pending either way: what is owed is paid later, and `activate` looks at it.
            WrapFor::Rotation(reply) => drop(reply.send(self.row(&kek))),
        }
    }

    /// Reads what is on disk of the copies. What cannot be read is owed again.
    pub(super) fn load_wraps(&mut self) {
        let mac_key = self.books.mac_key().copy();
        let (cluster, root_id) = (&self.settings.cluster, self.books.root_id());
        for id in self.keys.ids() {
            let file = wraps_file::file_name(&id);
            let read = |_, bytes: &[u8]| WrapSet::decode(bytes, &id, cluster, &root_id, &mac_key);
            match self.books.home.root.load(&file, Kind::Wraps, read) {
                Ok(loaded) => self.keys.set_wraps(id, loaded.value),
                Err(LoadError::Store(error)) if error.is_missing() => {}
                Err(LoadError::Store(error)) => trouble(LOAD, &KeeperError::Store(error)),
                Err(LoadError::Content(_)) => trouble(LOAD, &KeeperError::Store(self.books.home.root.damaged(&file))),
            }
        }
    }
}

const COPIES: &str = "complete the copies of a local KEK";
const LOAD: &str = "read the copies of a local KEK";
