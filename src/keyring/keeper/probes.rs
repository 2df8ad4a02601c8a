//! What providers say of their keys: probes, and what calls for texts have told.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::task::AbortHandle;

use super::arrival::{Arrival, Message};
use super::books::Change;
use super::errands::Errand;
use super::{Keeper, trouble};
use crate::audit::{Event, emit};
use crate::keyring::epoch::ProviderMemory;
use crate::keyring::rooted::Rooted;
use crate::keyring::state_file::State;
use crate::provider::KeyState;
use crate::provider::observed::{Candidate, Observation};
use crate::provider::set::{Member, Specimen};
use crate::store::Disk;

/// What a probe may take, login included. Nobody waits for it.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// First pause after a probe that failed before any has succeeded: a node that has just started waits for its first KEK.
const PROBE_AGAIN: Duration = Duration::from_secs(1);

/// What is remembered of the providers that run.
#[derive(Default)]
pub(super) struct Probes {
    /// Those that have told their key or failed to since they were configured.
    pub(super) heard: HashSet<String>,
    /// Those whose key is known from themselves since they were configured. What an earlier run has known of the others goes by a name,
    /// which may stand for another provider by now.
    pub(super) confirmed: HashSet<String>,
    /// Those whose last probe was not answered.
    failing: HashSet<String>,
    /// Those that tell of another key than the one that counts.
    moving: HashMap<String, Candidate>,
    /// Keys whose version went back, and key_ids that were left and are wanted again: told once.
    pub(super) told: HashSet<String>,
    running: Vec<AbortHandle>,
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.running.iter().for_each(AbortHandle::abort);
    }
}

impl<D: Disk + Clone> Keeper<'_, D> {
    /// Begins to work with the providers that run now.
    pub(super) fn meet_providers(&mut self) {
        self.probes = Probes::default();
        for errand in [Errand::KeyId, Errand::Copies] {
            self.errands.hurry(errand);
        }
        let Some(rooted) = self.keyring.rooted() else { return };
        let members = rooted.providers.members();
        // What has proved itself in a reload has told its key already. All at once: names may have been swapped.
        let told: Vec<_> =
            members.iter().filter_map(|member| Some((member.name().to_owned(), member.told()?))).collect();
        self.probes.heard.extend(told.iter().map(|(name, _)| name.clone()));
        self.observe(told);
        let specimens = self.specimens();
        for member in members {
            if let Some(record) = self.state().roots.record(member.name(), member.kind()) {
                member.remember(record.identity().clone());
            }
            let shares_its_key = |other: &Member| {
                other.name() != member.name()
                    && other.kind() == member.kind()
                    && self.key_of(other).is_some_and(|key| self.key_of(member) == Some(key))
            };
            if members.iter().any(shares_its_key) {
                let is_its_key = |of: &Specimen| {
                    of.wrap.kind == member.kind() && self.key_of(member).as_ref() == Some(&of.wrap.identity)
                };
                specimens.iter().filter(|of| is_its_key(of)).for_each(|specimen| member.show(specimen.clone()));
            }
            let probes = probe(member.clone(), rooted.rules.probe_every, self.own.clone());
            self.probes.running.push(rooted.runtime.spawn(probes).abort_handle());
        }
    }

    /// A probe has ended.
    pub(super) fn probed(&mut self, name: String, seen: Option<KeyState>) {
        let is_back = seen.is_some() && self.probes.failing.remove(&name);
        if seen.is_none() {
            self.probes.failing.insert(name.clone());
        }
        self.observe(seen.map(|seen| (name.clone(), seen)).into_iter().collect());
        self.probes.heard.insert(name);
        if is_back {
            // What failed for want of it may go well now, and is not left to the end of its pause.
            for errand in [Errand::KeyId, Errand::Copies] {
                self.errands.hurry(errand);
            }
        }
    }

    /// Providers have told their keys, with a probe, a wrap or a call for a text. Takes note, in one change of the state.
    pub(super) fn observe(&mut self, seen: Vec<(String, KeyState)>) {
        let Some(rooted) = self.keyring.rooted() else { return };
        let before = self.state().roots.clone();
        let mut next = before.clone();
        let (mut known, mut changed, mut went_back) = (Vec::new(), Vec::new(), Vec::new());
        for (name, seen) in seen {
            let Some(member) = rooted.providers.members().iter().find(|member| member.name() == name) else { continue };
            if !self.is_its_key(member, &seen, &before) {
                continue;
            }
            if next.record(&name, member.kind()).is_none_or(|record| *record.identity() != seen.identity) {
                next.put_name(&name, member.kind(), &seen, |name| is_configured(&rooted, name));
                changed.push((name.clone(), seen.version.clone()));
            }
            let delay = rooted.rules.activation_delay;
            // One sight counts once, however often it is looked at.
            let is_new = member.take_news();
            let record = next.of_key_mut(member.kind(), &seen.identity).filter(|_| is_new);
            let observed = record.map(|record| &mut record.observed);
            match observed.map(|observed| observed.observe(seen.clone(), delay, self.started.elapsed())) {
                Some(Observation::Moved) => changed.push((name.clone(), seen.version)),
                Some(Observation::WentBack(version)) => went_back.push((name.clone(), version)),
                Some(Observation::Same | Observation::Waiting) | None => {}
            }
            known.push(name);
        }
        for (provider, version) in &went_back {
            if self.probes.told.insert(format!("{provider} {version}")) {
                emit(&Event::ProviderWentBack { provider, version: version.as_str() });
            }
        }
        if changed.is_empty() {
            self.books.remember(next);
        } else {
            for (provider, version) in &changed {
                emit(&Event::ProviderKeySeen { provider, version: version.as_str() });
            }
            if let Err(error) = self.change(Change::of_memory(State { roots: next, ..self.state().clone() })) {
                return trouble("remember the version of a provider's key", &error);
            }
        }
        known.iter().for_each(|name| drop(self.probes.moving.remove(name)));
        self.probes.heard.extend(known.iter().cloned());
        self.probes.confirmed.extend(known);
    }

    /// Whether a provider counts as a way to the key that it tells. Once that is known of it, another key has to stay for a while; before,
    /// a name says nothing against a key that is known: whoever has it now was renamed.
    fn is_its_key(&mut self, member: &Member, seen: &KeyState, roots: &ProviderMemory) -> bool {
        let Some(record) = roots.record(member.name(), member.kind()) else { return true };
        let is_known = roots.of_key(member.kind(), &seen.identity).is_some();
        if *record.identity() == seen.identity || (is_known && !self.probes.confirmed.contains(member.name())) {
            return true;
        }
        let Some(rooted) = self.keyring.rooted() else { return false };
        let now = self.started.elapsed();
        let candidate = Candidate::seen(self.probes.moving.remove(member.name()), seen.clone(), now);
        let has_stayed = candidate.has_stayed(rooted.rules.activation_delay, now);
        self.probes.moving.insert(member.name().to_owned(), candidate);
        has_stayed
    }
}

fn is_configured(rooted: &Rooted, name: &str) -> bool {
    rooted.providers.members().iter().any(|member| member.name() == name)
}

/// Asks one provider for its key, for ever: at once, soon again until it has answered, and then as often as the rules say.
async fn probe(member: Member, every: Duration, own: std::sync::mpsc::Sender<Message>) {
    let mut pause = PROBE_AGAIN.min(every);
    loop {
        let mut next = every;
        if member.is_probe_due(every) {
            let seen = member.probe(tokio::time::Instant::now() + PROBE_TIMEOUT).await.ok();
            if seen.is_none() && member.identity().is_none() || member.health().wraps_fail_for.is_some() {
                next = pause;
                pause = (pause * 2).min(every);
            } else {
                pause = PROBE_AGAIN.min(every);
            }
            if own.send(Message::Arrival(Arrival::Probed(member.name().to_owned(), seen))).is_err() {
                return;
            }
        }
        tokio::time::sleep(next).await;
    }
}
