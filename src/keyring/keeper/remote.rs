//! The keeper and the providers: it takes note of what they report, asks them to wrap new KEKs and those that lack a copy, and turns
//! to another key_id when their keys have moved (design §3).
//!
//! No question is waited for: each runs on the providers' runtime, and its answer comes back as a command. One at a time.
//!
//! A key_id changes together with the local KEK: what is encrypted under a new version of a provider's key is encrypted under a
//! local KEK that no older version has wrapped. Until that is made, wrapped and on disk, the old one goes on being reported.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use super::handle::{Command, Purpose};
use super::{Keeper, trouble};
use crate::audit::{Event, emit};
use crate::keyring::epoch::{Epoch, Part, Record, Reported};
use crate::keyring::error::KeeperError;
use crate::keyring::live::Active;
use crate::keyring::ring::KekState;
use crate::keyring::rooted::Rooted;
use crate::keyring::state_file::State;
use crate::keyring::uses::RESERVED_BLOCK_USES;
use crate::keyring::wraps_file::WrapSet;
use crate::provider::observed::{Observation, Observed};
use crate::provider::set::{Member, Owned, WrapOutcome};
use crate::provider::{KeyState, ProviderKind, Wrapped};
use crate::store::Disk;
use crate::types::{KekId, Key};

/// First and last pause between attempts to turn to another key_id.
const RETRY_MIN: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(5) };
const RETRY_MAX: Duration = Duration::from_secs(300);
/// Between two attempts at copies that are owed.
const DEBT_PAUSE: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(10) };
/// What a probe may take, login included. Nobody waits for it.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// First pause after a probe that failed before any has succeeded: a node that has just started waits for its first KEK.
const PROBE_AGAIN: Duration = Duration::from_secs(1);

/// What the keeper remembers of the providers that run.
#[derive(Default)]
pub(super) struct Remote {
    /// Those that have answered a probe, well or not, since they were configured.
    pub(super) heard: HashSet<String>,
    /// A question to them is under way.
    pub(super) is_asked: bool,
    /// KEKs that wait for the end of that question.
    waiting: Vec<(KekId, Purpose)>,
    /// After a change of the key_id has failed: when to try again, and the pause before it.
    retry: Option<(Instant, Duration)>,
    /// After a copy that is owed was not made: when to ask for it again.
    pub(super) debts_wait_until: Option<Instant>,
    /// Keys whose version went back, and key_ids that were left and are wanted again: told once.
    told: HashSet<String>,
    probes: Vec<AbortHandle>,
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.probes.iter().for_each(AbortHandle::abort);
    }
}

impl<D: Disk + Clone> Keeper<'_, D> {
    /// Begins to work with the providers that run now.
    pub(super) fn meet_providers(&mut self) {
        let waiting = std::mem::take(&mut self.remote.waiting);
        self.remote = Remote::default();
        self.remote.waiting = waiting;
        self.wrap_next();
        let Some(rooted) = self.keyring.rooted() else { return self.pursue() };
        for member in rooted.providers.members() {
            if let Some(record) = self.state.roots.record(member.name(), member.kind()) {
                member.remember(record.observed.current().identity.clone());
            }
            // What has proved itself in a reload has told its key already.
            if let Some(seen) = member.told() {
                self.observe(member.name(), seen);
                self.remote.heard.insert(member.name().to_owned());
            }
            let probes = probe(member.clone(), rooted.rules.probe_every, self.own.clone());
            self.remote.probes.push(rooted.runtime.spawn(probes).abort_handle());
        }
        self.pursue();
    }

    /// A probe has ended.
    pub(super) fn probed(&mut self, name: String, seen: Option<KeyState>) -> bool {
        if let Some(seen) = seen {
            self.observe(&name, seen);
        }
        self.remote.heard.insert(name);
        self.pursue();
        true
    }

    /// Calls that were made for texts have told versions as well.
    pub(super) fn seen(&mut self, seen: Vec<(String, KeyState)>) -> bool {
        seen.into_iter().for_each(|(name, state)| self.observe(&name, state));
        self.pursue();
        true
    }

    fn observe(&mut self, name: &str, seen: KeyState) {
        let Some(rooted) = self.keyring.rooted() else { return };
        let Some(member) = rooted.providers.members().iter().find(|member| member.name() == name) else { return };
        let mut roots = self.state.roots.clone();
        let now = self.started.elapsed();
        let observation = match roots.record_mut(name, member.kind(), &seen.identity) {
            Some(record) => record.observed.observe(seen.clone(), rooted.rules.activation_delay, now),
            None => {
                let observed = Observed::new(seen.clone());
                roots.records.push(Record { name: name.to_owned(), kind: member.kind(), observed });
                Observation::Moved
            }
        };
        match observation {
            Observation::Same | Observation::Waiting
                if roots.record(name, member.kind()).map(|record| &record.name)
                    == self.state.roots.record(name, member.kind()).map(|record| &record.name) =>
            {
                self.state.roots = roots;
            }
            Observation::WentBack(version) => {
                self.state.roots = roots;
                if self.remote.told.insert(format!("{name} {version}")) {
                    emit(&Event::ProviderWentBack { provider: name, version: version.as_str() });
                }
            }
            Observation::Moved | Observation::Same | Observation::Waiting => {
                emit(&Event::ProviderKeySeen { provider: name, version: seen.version.as_str() });
                if let Err(error) = self.commit_state(State { roots, ..self.state.clone() }) {
                    trouble("remember the version of a provider's key", &error);
                }
            }
        }
    }

    /// What the key_id should name; `None` while that is not known.
    fn wanted(&self) -> Option<Reported> {
        let Some(rooted) = self.keyring.rooted() else { return Some(Reported::LocalKek) };
        let mut parts = std::collections::BTreeSet::new();
        let mut known = HashSet::new();
        for member in rooted.providers.writers() {
            let Some(record) = self.state.roots.record(member.name(), member.kind()) else { continue };
            let KeyState { identity, version } = record.observed.current().clone();
            known.insert(member.name());
            parts.insert(Part { kind: member.kind(), identity, version });
        }
        let all_known = rooted.providers.writers().all(|member| known.contains(member.name()));
        let all_heard = rooted.providers.writers().all(|member| self.remote.heard.contains(member.name()));
        // Somebody unknown may be somebody who was renamed, and who has to answer before that is known.
        let may_be_renamed =
            |member: &Member| !known.contains(member.name()) && self.has_orphan(&rooted, member.kind());
        let is_settled = all_heard && !rooted.providers.writers().any(may_be_renamed);
        let decided = all_known || (is_settled && rooted.suffices(|name| known.contains(name)));
        (decided && !parts.is_empty()).then_some(Reported::Epoch(Epoch { number: rooted.rules.epoch, parts }))
    }

    /// A key of this kind that the key_id names, and that no configured provider is known to have.
    fn has_orphan(&self, rooted: &Rooted, kind: ProviderKind) -> bool {
        let Reported::Epoch(epoch) = &self.state.roots.reported else { return false };
        let is_had = |part: &Part| {
            let mut members = rooted.providers.members().iter();
            members.any(|member| {
                let record = self.state.roots.record(member.name(), member.kind());
                record.is_some_and(|record| record.observed.current().identity == part.identity)
            })
        };
        epoch.parts.iter().any(|part| part.kind == kind && !is_had(part))
    }

    /// Why the key_id is not what it should be, for people.
    pub(super) fn waits(&self) -> Option<&'static str> {
        match self.wanted() {
            None => Some("a provider that has never answered here has to answer first"),
            Some(wanted) if wanted == self.state.roots.reported => None,
            Some(wanted) if self.was_left(&wanted) => {
                Some("this set of keys was left before and must not come back: raise write.epoch on all nodes")
            }
            Some(_) => Some("a new local KEK has to be made and wrapped first"),
        }
    }

    fn was_left(&self, wanted: &Reported) -> bool {
        match wanted {
            Reported::LocalKek => false,
            Reported::Epoch(epoch) => self.state.roots.left.contains(&epoch.key_id(&self.settings.cluster)),
        }
    }

    /// Takes the next step towards the wanted key_id, or pays a debt.
    pub(super) fn pursue(&mut self) {
        let busy = self.remote.is_asked || self.device_is_asked;
        if busy || self.remote.retry.is_some_and(|(at, _)| Instant::now() < at) {
            return;
        }
        let Some(wanted) = self.wanted().filter(|wanted| *wanted != self.state.roots.reported) else {
            return self.pay_a_debt();
        };
        if self.was_left(&wanted) {
            let key_id = wanted.key_id(&self.settings.cluster, &self.state.ring.active().id);
            if self.remote.told.insert(key_id.to_string()) {
                emit(&Event::EpochRefused { key_id: &key_id });
            }
            return self.pay_a_debt();
        }
        let step = match self.next_kek(&wanted) {
            Some(kek) => self.turn_or_wrap(wanted, kek),
            None => self.give_up_pending().and_then(|()| self.run_errand(Purpose::Epoch)),
        };
        if let Err(error) = step {
            self.epoch_failed(&error);
        }
    }

    /// The KEK to turn to, if it is there already.
    fn next_kek(&self, wanted: &Reported) -> Option<KekId> {
        let active = self.state.ring.active();
        let is_direct = self.keyring.rooted().is_some_and(|rooted| !rooted.rules.local_kek);
        if self.is_unused() || (is_direct && *wanted != Reported::LocalKek) {
            return Some(active.id);
        }
        let pending = self.state.ring.pending().map(|pending| pending.id);
        pending.filter(|id| self.keks.contains_key(id) && !self.was_wrapped_before(id))
    }

    /// A KEK in pre-activation that cannot be the next one decrypts only, so that there is room for another.
    fn give_up_pending(&mut self) -> Result<(), KeeperError> {
        match self.state.ring.pending() {
            Some(_) => self.change(self.state.ring.without_pending((self.settings.now)())),
            None => Ok(()),
        }
    }

    /// Whether a version that was left since has wrapped this KEK.
    fn was_wrapped_before(&self, kek: &KekId) -> bool {
        let Some(set) = self.wraps.get(kek) else { return false };
        let was_left = |wrap: &Wrapped| {
            let pair = (wrap.identity.as_str(), wrap.version.as_str());
            let mut left = self.state.roots.records.iter().flat_map(|record| record.observed.left());
            left.any(|(identity, version)| (identity.as_str(), version.as_str()) == pair)
        };
        set.wraps.iter().any(was_left)
    }

    /// Made by `init` or `recover`, and not a single text is under it.
    pub(super) fn is_unused(&self) -> bool {
        self.has_no_text() && self.state.roots.reported == Reported::LocalKek
    }

    /// Not a single text can be under the active KEK: so it is on a node that has known no mode but "direct".
    pub(super) fn has_no_text(&self) -> bool {
        self.state.ring.active().uses_reserved == 0
    }

    fn turn_or_wrap(&mut self, wanted: Reported, kek: KekId) -> Result<(), KeeperError> {
        let Some(rooted) = self.keyring.rooted() else { return self.turn(wanted, kek) };
        if !rooted.rules.local_kek || self.owed_for(&rooted, &kek).is_empty() {
            return self.turn(wanted, kek);
        }
        self.wrap(&rooted, kek, Purpose::Epoch)
    }

    /// One write: the key_id and the KEK that goes with it.
    fn turn(&mut self, wanted: Reported, kek: KekId) -> Result<(), KeeperError> {
        let now = (self.settings.now)();
        let ring = match kek == self.state.ring.active().id {
            true => self.state.ring.clone(),
            false => self.state.ring.activate(&kek, now).map_err(KeeperError::Move)?,
        };
        let used = ring.active().uses_reserved;
        let is_direct = self.keyring.rooted().is_some_and(|rooted| !rooted.rules.local_kek);
        let roots = self.state.roots.report(wanted, &self.settings.cluster);
        // In mode "direct" the local KEK encrypts nothing.
        let ring = if is_direct { ring } else { ring.with_reservation(used + RESERVED_BLOCK_USES) };
        self.change_state(State { ring, roots, ..self.state.clone() })?;
        self.remote.retry = None;
        self.publish();
        emit(&Event::KeyActivated { kek: &kek, key_id: &self.key_id() });
        Ok(())
    }

    pub(super) fn epoch_failed(&mut self, error: &KeeperError) {
        let pause = self.remote.retry.map_or(RETRY_MIN, |(_, pause)| (pause * 2).min(RETRY_MAX));
        self.remote.retry = Some((Instant::now() + pause, pause));
        trouble("turn to the providers' keys as they are now", error);
    }

    /// Asks those that have not wrapped this KEK yet.
    pub(super) fn wrap(&mut self, rooted: &Arc<Rooted>, kek: KekId, purpose: Purpose) -> Result<(), KeeperError> {
        if self.remote.is_asked {
            self.remote.waiting.push((kek, purpose));
            return Ok(());
        }
        let owed: HashSet<String> = self.owed_for(rooted, &kek).into_iter().collect();
        let key = self.keks.get(&kek).and_then(|live| live.copy_key()).ok_or(KeeperError::NotOpened(kek))?;
        let (providers, own) = (rooted.providers.clone(), self.own.clone());
        let of = Owned { cluster: self.settings.cluster.clone(), kek };
        self.remote.is_asked = true;
        rooted.runtime.spawn(async move {
            let key: Key = key;
            let outcome = providers.wrap_by(&key, &of, |member: &Member| owed.contains(member.name())).await;
            // Fails only when the keeper has stopped.
            let _ = own.send(Command::Wrapped(kek, Box::new(outcome), purpose));
        });
        Ok(())
    }

    /// The providers have answered.
    pub(super) fn wrapped(&mut self, kek: KekId, outcome: WrapOutcome, purpose: Purpose) -> bool {
        self.remote.is_asked = false;
        let WrapOutcome { wraps, owed } = outcome;
        let seen: Vec<_> = wraps.iter().map(|(name, wrap)| (name.clone(), wrap.key_state())).collect();
        let stored = self.add_wraps(&kek, wraps.into_iter().map(|(_, wrap)| wrap).collect());
        seen.into_iter().for_each(|(name, state)| self.observe(&name, state));
        let is_owed = !owed.is_empty() || stored.is_err();
        for refusal in owed {
            emit(&Event::WrapOwed { kek: &kek, provider: &refusal.provider, error: &refusal.error.to_string() });
        }
        if let (Purpose::Debt, Err(error)) = (&purpose, &stored) {
            trouble("complete the copies of a local KEK", error);
        }
        let enough = stored.and_then(|()| self.check_wraps(&kek));
        match purpose {
            // Whoever limits us, or lies, is not away: without a pause it would be asked again at once.
            Purpose::Debt => self.remote.debts_wait_until = is_owed.then(|| Instant::now() + DEBT_PAUSE),
            Purpose::Epoch => {
                let wanted = self.wanted().filter(|wanted| *wanted != self.state.roots.reported);
                let turned = enough.and_then(|()| wanted.map_or(Ok(()), |wanted| self.turn(wanted, kek)));
                if let Err(error) = turned {
                    self.epoch_failed(&error);
                }
            }
            Purpose::Rotate(reply) => {
                // Pending either way: what is owed is paid later, and `activate` looks at it.
                let _ = reply.send(self.row(&kek));
            }
            Purpose::RotateSinceDue => {
                if let Err(error) = enough.and_then(|()| self.activate(&kek).map(drop)) {
                    self.rotation_failed(&error);
                }
            }
            Purpose::Keep => {}
        }
        self.wrap_next();
        self.pursue();
        true
    }

    /// Those that have waited for the end of another question.
    fn wrap_next(&mut self) {
        let Some(rooted) = self.keyring.rooted() else {
            // Nobody to ask: whoever waits is told.
            return self.remote.waiting.clear();
        };
        while let Some((kek, purpose)) = self.remote.waiting.pop() {
            if self.remote.is_asked {
                return self.remote.waiting.push((kek, purpose));
            }
            if let Err(error) = self.wrap(&rooted, kek, purpose) {
                trouble("let the providers wrap a local KEK", &error);
            }
        }
    }

    /// How new texts are made now.
    pub(super) fn make_active(&self) -> Option<Arc<Active>> {
        let rooted = self.keyring.rooted();
        let key_id = self.key_id();
        let id = self.state.ring.active().id;
        if let Some(rooted) = &rooted {
            let is_reported = self.state.roots.reported != Reported::LocalKek;
            // From mode "direct" to "rooted": until the KEK has its copies, each text goes on having a key of its own.
            let lacks_copies = self.has_no_text() && self.check_wraps(&id).is_err();
            match (is_reported, rooted.rules.local_kek) {
                (false, _) if self.is_unused() => return None,
                (true, false) => return Some(Arc::new(Active::direct(key_id))),
                (true, true) if lacks_copies => return Some(Arc::new(Active::direct(key_id))),
                (false | true, _) => {}
            }
        }
        let kek = Arc::clone(self.keks.get(&id)?);
        let wraps = self.wraps.get(&id).map_or(&[][..], |set| &set.wraps);
        let made = Active::local(&self.settings.cluster, key_id.clone(), Arc::clone(&kek), wraps);
        // Longer than kube-apiserver takes: better without copies than not at all. The configuration bounds their number.
        made.or_else(|_| Active::local(&self.settings.cluster, key_id, kek, &[])).ok().map(Arc::new)
    }

    /// Other providers, or other rules, from now on. What would leave a KEK without any provider that opens it is refused, unless
    /// the operator has named the provider that is given up.
    pub(super) fn configure(&mut self, rooted: Option<Arc<Rooted>>, abandon: bool) -> Result<(), KeeperError> {
        if !abandon {
            self.check_openers(rooted.as_deref())?;
        }
        self.keyring.set_rooted(rooted);
        self.meet_providers();
        self.publish();
        Ok(())
    }

    fn check_openers(&self, next: Option<&Rooted>) -> Result<(), KeeperError> {
        let before = self.keyring.rooted();
        let opens = |rooted: &Rooted, set: &WrapSet| {
            rooted.providers.members().iter().any(|member| {
                let record = self.state.roots.record(member.name(), member.kind());
                let identity = record.map(|record| record.observed.current().identity.clone());
                let known = [identity, member.identity()];
                let made = |identity| set.of_every_text().iter().any(|wrap| wrap.is_by(member.kind(), identity));
                known.iter().flatten().any(made)
            })
        };
        for (entry, state) in self.state.ring.entries() {
            let Some(set) = self.wraps.get(&entry.id).filter(|_| state != KekState::Destroyed) else { continue };
            let had = before.as_ref().is_some_and(|rooted| opens(rooted, set));
            if had && !next.is_some_and(|rooted| opens(rooted, set)) {
                return Err(KeeperError::LastOpener { kek: entry.id });
            }
        }
        Ok(())
    }
}

/// Asks one provider for its key, for ever: at once, soon again until it has answered, and then as often as the rules say.
async fn probe(member: Member, every: Duration, own: std::sync::mpsc::Sender<Command>) {
    let mut pause = PROBE_AGAIN.min(every);
    loop {
        let mut next = every;
        if member.is_probe_due(every) {
            let seen = member.probe(tokio::time::Instant::now() + PROBE_TIMEOUT).await.ok();
            if seen.is_none() && member.identity().is_none() {
                next = pause;
                pause = (pause * 2).min(every);
            }
            if own.send(Command::Probed(member.name().to_owned(), seen)).is_err() {
                return;
            }
        }
        tokio::time::sleep(next).await;
    }
}
