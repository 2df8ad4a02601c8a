//! Which keys of providers the key_id should name, and the way to the one that names them.
//!
//! A key_id changes together with the local KEK: what is encrypted under a new version of a provider's key is encrypted under a
//! local KEK that no older version has wrapped. Until that is made, wrapped and on disk, the old one goes on being reported.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::arrival::WrapFor;
use super::books::Change;
use super::errands::{Errand, Slot};
use super::{Keeper, trouble};
use crate::audit::{Event, emit};
use crate::keyring::epoch::{Epoch, Part, Reported};
use crate::keyring::error::KeeperError;
use crate::keyring::live::Active;
use crate::keyring::rooted::Rooted;
use crate::keyring::state_file::{KeyIdBegan, State};
use crate::provider::set::Member;
use crate::provider::{KeyIdentity, KeyState, ProviderKind, Wrapped};
use crate::seal::root::NodeRoot;
use crate::store::Disk;
use crate::types::KekId;

impl<D: Disk + Clone> Keeper<'_, D> {
    /// What the key_id should name; `None` while that is not known.
    fn wanted(&self) -> Option<Reported> {
        let Some(rooted) = self.keyring.writing() else { return Some(Reported::LocalKek) };
        let roots = &self.state().roots;
        let mut parts = BTreeSet::new();
        let mut all_known = true;
        for member in rooted.providers.writers() {
            let state = roots.record(member.name(), member.kind()).map(|record| record.observed.current().clone());
            // A key that the key_id does not name yet is told by the provider itself: a name may stand for another one by now.
            let known =
                state.filter(|state| self.is_confirmed(member) || self.is_named(member.kind(), &state.identity));
            all_known &= known.is_some();
            let part = |KeyState { identity, version }| Part { kind: member.kind(), identity, version };
            parts.extend(known.map(part));
        }
        let number = self.epoch_wanted(&rooted);
        let wanted = Reported::Epoch(Epoch { number, parts: parts.clone() });
        if all_known && wanted == roots.reported {
            return Some(wanted);
        }
        // Another one only when everybody was heard: names may have been changed while nobody was asked.
        let all_heard = rooted.providers.writers().all(|member| self.probes.heard.contains(member.name()));
        let may_have_it = |member: &Member| self.may_be_renamed(member) && self.has_orphan(&rooted, member.kind());
        let is_settled =
            all_heard && !rooted.providers.writers().any(may_have_it) && !self.may_only_be_renamed(&rooted, &parts);
        let suffices = || rooted.suffices(|member| self.key_of(member), |_, _| true);
        (is_settled && !parts.is_empty() && (all_known || suffices())).then_some(wanted)
    }

    /// Whether a key that would be left may be that of a provider which has not told its key yet.
    fn may_only_be_renamed(&self, rooted: &Rooted, wanted: &BTreeSet<Part>) -> bool {
        let Reported::Epoch(epoch) = &self.state().roots.reported else { return false };
        let is_kept =
            |part: &Part| wanted.iter().any(|kept| (kept.kind, &kept.identity) == (part.kind, &part.identity));
        let may_have_it =
            |kind| rooted.providers.members().iter().any(|member| member.kind() == kind && !self.is_confirmed(member));
        epoch.parts.iter().any(|part| !is_kept(part) && may_have_it(part.kind))
    }

    /// It has told its key itself, since it was configured.
    fn is_confirmed(&self, member: &Member) -> bool {
        self.probes.confirmed.contains(member.name())
    }

    /// The key_id names this key, in whichever version.
    pub(super) fn is_named(&self, kind: ProviderKind, identity: &KeyIdentity) -> bool {
        match &self.state().roots.reported {
            Reported::LocalKek => false,
            Reported::Epoch(epoch) => epoch.parts.iter().any(|part| (part.kind, &part.identity) == (kind, identity)),
        }
    }

    /// Whether it has to answer before it is known which key it has: nobody knows, or its name stands on a key that somebody else may have
    /// in its place.
    fn may_be_renamed(&self, member: &Member) -> bool {
        let Some(record) = self.state().roots.record(member.name(), member.kind()) else { return true };
        let configured = self.keyring.rooted();
        let names = configured.iter().flat_map(|rooted| rooted.providers.members()).map(Member::name);
        let is_shared = names.into_iter().any(|name| name != member.name() && record.names.contains(name));
        is_shared && !self.is_confirmed(member)
    }

    /// A key of this kind that the key_id names, and that no configured provider is known to have.
    fn has_orphan(&self, rooted: &Rooted, kind: ProviderKind) -> bool {
        let Reported::Epoch(epoch) = &self.state().roots.reported else { return false };
        let members = rooted.providers.members();
        let is_had = |part: &Part| members.iter().any(|member| self.key_of(member).as_ref() == Some(&part.identity));
        epoch.parts.iter().any(|part| part.kind == kind && !is_had(part))
    }

    /// Why the key_id is not what it should be, for people.
    pub(super) fn waits(&self) -> Option<&'static str> {
        match self.wanted() {
            None => Some("a provider that has not reported its key yet has to answer first"),
            Some(wanted) if wanted == self.state().roots.reported => self.lacks_clock().then_some(
                "write.epoch turns by the calendar, and nothing says that the clock of this node is synchronised",
            ),
            Some(wanted) if self.was_left(&wanted) => Some(
                "this set of keys was in use before and must not come back: raise write.epoch on all nodes, or wait for its \
                 next turn if the calendar turns it",
            ),
            Some(_) => Some("a new local KEK has to be made and wrapped first"),
        }
    }

    fn was_left(&self, wanted: &Reported) -> bool {
        match wanted {
            Reported::LocalKek => false,
            Reported::Epoch(epoch) => self.state().roots.left.contains(&epoch.key_id(&self.settings.cluster)),
        }
    }

    /// Takes the next step towards the wanted key_id, or pays a debt.
    pub(super) fn pursue(&mut self, now: Instant) {
        if self.state().awaits_bundle {
            return;
        }
        let wanted = self.wanted().filter(|wanted| *wanted != self.state().roots.reported);
        self.errands.want_if(Errand::KeyId, wanted.is_some());
        let is_free = self.errands.is_free(Slot::Device) && self.errands.is_free(Slot::Providers);
        let Some(wanted) = wanted else { return self.pay_a_debt(now) };
        if self.was_left(&wanted) {
            let key_id = wanted.key_id(&self.settings.cluster, &self.ring().active().id);
            if self.probes.told.insert(key_id.to_string()) {
                emit(&Event::EpochRefused { key_id: &key_id });
            }
            return self.pay_a_debt(now);
        }
        if !is_free || !self.errands.is_due(Errand::KeyId, now) {
            return;
        }
        let step = match self.next_kek(&wanted) {
            Some(kek) => self.turn_or_wrap(wanted, kek),
            None => self.give_up_pending().and_then(|()| self.ask_for_errand(Errand::KeyId)),
        };
        if let Err(error) = step {
            self.key_id_failed(&error);
        }
    }

    /// The device has opened the root for the next KEK.
    pub(super) fn root_for_key_id(&mut self, root: Result<NodeRoot, KeeperError>) {
        let wanted = self.wanted();
        match root.and_then(|root| self.make_pending(&root)) {
            Ok(kek) => self.made_for = wanted.map(|wanted| (kek, wanted)),
            Err(error) => self.key_id_failed(&error),
        }
    }

    /// The providers have answered.
    pub(super) fn wrapped_for_key_id(&mut self, kek: KekId, enough: Result<(), KeeperError>) {
        let wanted = self.wanted().filter(|wanted| *wanted != self.state().roots.reported);
        // Another version may count by now, for which another KEK has to be made.
        let wanted = wanted.filter(|wanted| self.next_kek(wanted) == Some(kek));
        let turned = enough.and_then(|()| wanted.map_or(Ok(()), |wanted| self.turn(wanted, kek)));
        if let Err(error) = turned {
            self.key_id_failed(&error);
        }
    }

    /// The KEK to turn to, if it is there already.
    fn next_kek(&self, wanted: &Reported) -> Option<KekId> {
        let active = self.ring().active();
        let is_direct = self.keyring.rooted().is_some_and(|rooted| !rooted.rules.local_kek);
        if self.is_unused() || (is_direct && *wanted != Reported::LocalKek) {
            return Some(active.id);
        }
        let pending = self.ring().pending().map(|pending| pending.id);
        // Whatever wraps one that was made for this very key_id, the next one would be wrapped by as well.
        let is_made_for = |id: &KekId| self.made_for.as_ref().is_some_and(|(kek, named)| kek == id && named == wanted);
        pending.filter(|id| self.keys.has(id) && (is_made_for(id) || !self.was_wrapped_before(id)))
    }

    /// A KEK in pre-activation that cannot be the next one decrypts only, so that there is room for another.
    fn give_up_pending(&mut self) -> Result<(), KeeperError> {
        match self.ring().pending() {
            Some(_) => {
                let ring = self.ring().without_pending((self.settings.now)());
                self.change(Change::of_keys(self.state().with_ring(ring)))
            }
            None => Ok(()),
        }
    }

    /// Whether a version that was left since has wrapped this KEK.
    fn was_wrapped_before(&self, kek: &KekId) -> bool {
        let Some(set) = self.keys.wraps(kek) else { return false };
        let part = |wrap: &Wrapped| {
            let KeyState { identity, version } = wrap.key_state();
            Part { kind: wrap.kind, identity, version }
        };
        set.wraps.iter().any(|wrap| self.state().roots.was_left(&part(wrap)))
    }

    /// Made by `init` or `recover`, and not a single text is under it.
    pub(super) fn is_unused(&self) -> bool {
        self.has_no_text() && self.state().roots.reported == Reported::LocalKek
    }

    /// Not a single text can be under the active KEK: so it is on a node that has known no mode but "direct".
    pub(super) fn has_no_text(&self) -> bool {
        self.ring().active().uses_reserved == 0
    }

    fn turn_or_wrap(&mut self, wanted: Reported, kek: KekId) -> Result<(), KeeperError> {
        let Some(rooted) = self.keyring.writing() else { return self.turn(wanted, kek) };
        if !rooted.rules.local_kek || self.owed_for(&rooted, &kek).is_empty() {
            // Nothing is owed either where the keys are fewer than the rules ask for.
            return self.check_wraps(&kek).and_then(|()| self.turn(wanted, kek));
        }
        self.wrap(&rooted, kek, WrapFor::Errand(Errand::KeyId))
    }

    /// One write: the key_id and the KEK that goes with it.
    fn turn(&mut self, wanted: Reported, kek: KekId) -> Result<(), KeeperError> {
        let now = (self.settings.now)();
        let ring = match kek == self.ring().active().id {
            true => self.ring().clone(),
            false => self.ring().activate(&kek, now).map_err(KeeperError::Move)?,
        };
        let used = ring.active().uses_reserved;
        let is_direct = self.keyring.rooted().is_some_and(|rooted| !rooted.rules.local_kek);
        let roots = self.state().roots.report(wanted, &self.settings.cluster);
        // In mode "direct" the local KEK encrypts nothing.
        let ring = if is_direct { ring } else { ring.with_reservation(used.saturating_add(self.blocks.first())) };
        let next = match kek == self.ring().active().id {
            true => State { ring, ..self.state().clone() },
            false => self.state().turned(ring),
        };
        let key_id_began = KeyIdBegan::now(&next.ring, now);
        self.change(Change::of_keys(State { roots, key_id_began, ..next }))?;
        self.errands.done(Errand::KeyId);
        self.publish();
        emit(&Event::KeyActivated { kek: &kek, key_id: &self.key_id() });
        Ok(())
    }

    fn key_id_failed(&mut self, error: &KeeperError) {
        self.errands.failed(Errand::KeyId, Instant::now());
        trouble("change to the providers' current keys", error);
    }

    /// How new texts are made now.
    pub(super) fn make_active(&self) -> Option<Arc<Active>> {
        if self.state().awaits_bundle {
            return None;
        }
        let rooted = self.keyring.writing();
        let key_id = self.key_id();
        let id = self.ring().active().id;
        let mut must_have_copies = false;
        if let Some(rooted) = &rooted {
            let is_reported = self.state().roots.reported != Reported::LocalKek;
            match (is_reported, rooted.rules.local_kek) {
                (false, _) if self.is_unused() => return None,
                (true, false) => return Some(Arc::new(Active::direct(key_id))),
                // Other nodes read what is written under this key_id by the copies alone. Until they are there, each text has a key
                // of its own while the providers answer.
                (true, true) => must_have_copies = self.check_wraps(&id).is_err(),
                (false, true | false) => {}
            }
        }
        let Some(kek) = self.keys.get(&id).cloned() else {
            // It does not open here. Providers have copies of it, and make others.
            let is_reported = self.state().roots.reported != Reported::LocalKek;
            return (is_reported && rooted.is_some()).then(|| Arc::new(Active::direct(key_id)));
        };
        let wraps = self.keys.wraps(&id).map_or(&[][..], |set| &set.wraps);
        let made = Active::local(&self.settings.cluster, key_id.clone(), Arc::clone(&kek), wraps);
        // Longer than kube-apiserver takes: better without copies than not at all. The configuration bounds their number.
        let made = made.or_else(|_| Active::local(&self.settings.cluster, key_id, kek, &[])).ok()?;
        Some(Arc::new(if must_have_copies { made.until_copied() } else { made }))
    }

    /// Other providers, or other rules, from now on. The caller has seen to it that something opens what is stored.
    pub(super) fn configure(&mut self, rooted: Option<Arc<Rooted>>) {
        let opens_foreign = |rooted: &Arc<Rooted>| rooted.providers.open_foreign_texts();
        if rooted.as_ref().is_some_and(opens_foreign) && !self.keyring.rooted().as_ref().is_some_and(opens_foreign) {
            self.foreign_since = (self.settings.now)();
        }
        self.keyring.set_rooted(rooted);
        self.meet_providers();
        self.publish();
    }
}
