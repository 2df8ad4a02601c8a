//! KEKs of other nodes, opened by providers when a text needs one. All that ask for the same one with the same copies at the same
//! time are one question: a text that brings another copy has another way, and does not share the fate of one that has fewer. The answers stay in memory up to a bound, the least recently used going first.
//!
//! A text that kube-apiserver asks for is kept by whoever waits for the same question: a scan of etcd, which keeps nothing, may have asked first.
//!
//! An answer is known to be right by the check value that the text brings along. It is kept under id and check value together, so
//! that a text with wraps of somebody else's making spoils nothing for the others. What the operator has destroyed is forgotten, and an
//! answer that comes after that is not kept.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::places::Places;
use super::snapshot::LiveKek;
use crate::keyring::attached::{Brought, Check};
use crate::keyring::error::KeyringError;
use crate::keyring::rooted::{ProvidersError, Rooted};
use crate::keyring::uses::UseCounter;
use crate::provider::set::WrapContext;
use crate::sandbox::memory::LockedKey;
use crate::telemetry::Source;
use crate::types::{ClusterId, KekId, Key, lock};

/// KEKs of other nodes in memory: one for each node and rotation.
const KEPT_MAX: usize = 4096;

type Found = Result<Arc<LiveKek>, ProvidersError>;

/// A KEK and the copies that a text brings of it.
type Question = (KekId, Check, [u8; 32]);

#[derive(Default)]
struct Slots {
    kept: HashMap<(KekId, Check), Kept>,
    /// Questions that are under way, and whether anybody who waits keeps the answer.
    asked: HashMap<Question, (watch::Receiver<Option<Found>>, bool)>,
    /// Nothing of these is kept.
    destroyed: HashSet<KekId>,
    moment: u64,
}

struct Kept {
    live: Arc<LiveKek>,
    /// The moment of its last use.
    used: u64,
    /// A sealed copy was asked for.
    is_told: bool,
}

impl Slots {
    fn keep(&mut self, kek: (KekId, Check), live: Arc<LiveKek>) {
        if self.destroyed.contains(&kek.0) {
            return;
        }
        self.kept.insert(kek, Kept { live, used: self.moment, is_told: false });
        if self.kept.len() > KEPT_MAX {
            let oldest = self.kept.iter().map(|(kek, kept)| (kept.used, *kek)).min_by_key(|(used, _)| *used);
            oldest.map(|(_, kek)| self.kept.remove(&kek));
        }
    }
}

#[derive(Clone, Default)]
pub(super) struct Others(Arc<Mutex<Slots>>);

impl Others {
    /// The KEK of a text, from memory or from a provider. `keep` is false where each text is to be asked for.
    pub(super) async fn get(
        &self,
        rooted: &Rooted,
        cluster: &ClusterId,
        id: KekId,
        brought: Brought,
        keep: bool,
        places: &Places,
    ) -> Result<(Arc<LiveKek>, Source), KeyringError> {
        let (mut answer, _place) = {
            let slots = &mut *self.slots();
            slots.moment += 1;
            if let Some(kept) = slots.kept.get_mut(&(id, brought.check)) {
                kept.used = slots.moment;
                return Ok((Arc::clone(&kept.live), Source::Memory));
            }
            // From here on it waits, also for a question of somebody else.
            let place = places.take()?;
            match slots.asked.get_mut(&question(id, &brought)) {
                Some((answer, is_kept)) => {
                    *is_kept |= keep;
                    (answer.clone(), place)
                }
                None => (self.ask(slots, rooted, cluster, id, brought, keep), place),
            }
        };
        let lost = || KeyringError::Providers(ProvidersError::lost());
        let found = match answer.wait_for(Option::is_some).await {
            Ok(found) => found.clone().ok_or_else(lost)?,
            Err(_) => return Err(lost()),
        };
        found.map(|kek| (kek, Source::Provider)).map_err(KeyringError::Providers)
    }

    /// Whether a sealed copy is to be asked for, which is said once of each that is kept.
    pub(super) fn is_first_told(&self, id: KekId, check: Check) -> bool {
        self.slots().kept.get_mut(&(id, check)).is_some_and(|kept| !std::mem::replace(&mut kept.is_told, true))
    }

    /// In a task of its own, so that a caller that gives up takes nobody's answer along.
    fn ask(
        &self,
        slots: &mut Slots,
        rooted: &Rooted,
        cluster: &ClusterId,
        id: KekId,
        brought: Brought,
        keep: bool,
    ) -> watch::Receiver<Option<Found>> {
        let (tell, answer) = watch::channel(None);
        let question = question(id, &brought);
        slots.asked.insert(question, (answer.clone(), keep));
        let (providers, cluster, this) = (rooted.providers.clone(), cluster.clone(), self.clone());
        rooted.spawn(async move {
            // Also when this task is dropped in the middle: those who wait learn it by the closed channel, and the next one asks anew.
            let slot = Asked { this: &this, question, has_ended: false };
            let of = WrapContext { cluster, kek: id };
            let is_right = |key: &Key| Check::of(&id, key.expose()) == brought.check;
            let found = match providers.unwrap(&brought.wraps, &of, is_right).await {
                Ok(key) => LockedKey::new(key)
                    .map(|key| Arc::new(LiveKek::new(id, key, UseCounter::new(0, 0, 0))))
                    .map_err(|_| ProvidersError::memory()),
                Err(error) => Err(ProvidersError::of(&error)),
            };
            // First, or whoever comes after the answer would still have it: where nothing is kept, each one asks.
            slot.end(found.as_ref().ok());
            // Nobody may wait any more.
            let _ = tell.send(Some(found));
        });
        answer
    }

    /// These are destroyed: no key of theirs stays here.
    pub(super) fn forget(&self, destroyed: &HashSet<KekId>) {
        let slots = &mut *self.slots();
        slots.kept.retain(|(id, _), _| !destroyed.contains(id));
        slots.destroyed.clone_from(destroyed);
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        lock::lock(&self.0)
    }
}

fn question(id: KekId, brought: &Brought) -> Question {
    let mut digest = Sha256::new();
    for wrap in &brought.wraps {
        // None of these is longer than a few kilobytes.
        for part in [wrap.identity.as_str().as_bytes(), wrap.version.as_str().as_bytes(), wrap.text()] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.update([wrap.kind as u8]);
    }
    (id, brought.check, digest.finalize().into())
}

/// A question that has ended leaves no slot behind.
struct Asked<'a> {
    this: &'a Others,
    question: Question,
    has_ended: bool,
}

impl Asked<'_> {
    /// Who waits by now decides whether it is kept, and nobody can join any more.
    fn end(mut self, found: Option<&Arc<LiveKek>>) {
        let slots = &mut *self.this.slots();
        let is_kept = slots.asked.remove(&self.question).is_some_and(|(_, is_kept)| is_kept);
        if let (Some(kek), true) = (found, is_kept) {
            slots.keep((self.question.0, self.question.1), Arc::clone(kek));
        }
        // What asks the same from now on has a slot of its own.
        self.has_ended = true;
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.this.slots().asked.remove(&self.question);
        }
    }
}

impl ProvidersError {
    pub(super) fn lost() -> Self {
        Self::ours(
            "the request to the providers was given up",
            "try again; if it fails again, restart nodeseald and report it",
        )
    }

    fn memory() -> Self {
        Self::ours("no memory for a key", "free memory, or raise the limit of locked memory")
    }
}

#[cfg(test)]
mod tests;
