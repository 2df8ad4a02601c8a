//! KEKs of other nodes, opened by providers when a text needs one. All that ask for the same one with the same copies at the same
//! time are one question: a text that brings another copy has another way, and does not share the fate of one that has fewer. The answers stay in memory up to a bound, the least recently used going first.
//!
//! An answer is known to be right by the check value that the text brings along. It is kept under id and check value together, so
//! that a text with wraps of somebody else's making spoils nothing for the others. What the operator has destroyed is forgotten, and an
//! answer that comes after that is not kept.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::places::Places;
use super::snapshot::LiveKek;
use crate::keyring::attached::{Brought, Check};
use crate::keyring::error::KeyringError;
use crate::keyring::rooted::{ProvidersError, Rooted};
use crate::keyring::uses::UseCounter;
use crate::provider::set::Owned;
use crate::sandbox::memory::LockedKey;
use crate::types::{ClusterId, KekId, Key};

/// KEKs of other nodes in memory: one for each node and rotation.
const KEPT_MAX: usize = 4096;

type Found = Result<Arc<LiveKek>, ProvidersError>;

/// A KEK and the copies that a text brings of it.
type Question = (KekId, Check, [u8; 32]);

#[derive(Default)]
struct Slots {
    /// With the moment of its last use.
    kept: HashMap<(KekId, Check), (Arc<LiveKek>, u64)>,
    /// Questions that are under way.
    asked: HashMap<Question, watch::Receiver<Option<Found>>>,
    /// Nothing of these is kept.
    destroyed: HashSet<KekId>,
    moment: u64,
}

#[derive(Clone, Default)]
pub(super) struct Foreign(Arc<Mutex<Slots>>);

/// A KEK of another node, and whether this question was the one that brought it.
pub(super) struct Opened {
    pub(super) kek: Arc<LiveKek>,
    pub(super) is_new: bool,
}

impl Foreign {
    /// The KEK of a text, from memory or from a provider. `keep` is false where each text is to be asked for.
    pub(super) async fn get(
        &self,
        rooted: &Rooted,
        cluster: &ClusterId,
        id: KekId,
        brought: Brought,
        keep: bool,
        places: &Places,
    ) -> Result<Opened, KeyringError> {
        let (mut answer, is_new, _place) = {
            let slots = &mut *self.slots();
            slots.moment += 1;
            if let Some((kek, used)) = slots.kept.get_mut(&(id, brought.check)) {
                *used = slots.moment;
                return Ok(Opened { kek: Arc::clone(kek), is_new: false });
            }
            // From here on it waits, also for a question of somebody else.
            let place = places.take()?;
            match slots.asked.get(&question(id, &brought)) {
                Some(answer) => (answer.clone(), false, place),
                None => (self.ask(slots, rooted, cluster, id, brought, keep), true, place),
            }
        };
        let lost = || KeyringError::Providers(ProvidersError::lost());
        let found = match answer.wait_for(Option::is_some).await {
            Ok(found) => found.clone().ok_or_else(lost)?,
            Err(_) => return Err(lost()),
        };
        found.map(|kek| Opened { kek, is_new }).map_err(KeyringError::Providers)
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
        slots.asked.insert(question, answer.clone());
        let (providers, cluster, this) = (rooted.providers.clone(), cluster.clone(), self.clone());
        rooted.spawn(async move {
            // Also when this task is dropped in the middle: those who wait learn it by the closed channel, and the next one asks anew.
            let slot = Asked { this: &this, question };
            let of = Owned { cluster, kek: id };
            let is_right = |key: &Key| Check::of(&id, key.expose()) == brought.check;
            let found = match providers.unwrap(&brought.wraps, &of, is_right).await {
                Ok(key) => LockedKey::new(key)
                    .map(|key| Arc::new(LiveKek::new(id, key, UseCounter::new(0, 0, 0))))
                    .map_err(|_| ProvidersError::memory()),
                Err(error) => Err(ProvidersError::of(&error)),
            };
            if let (Ok(kek), true) = (&found, keep) {
                this.keep((id, brought.check), Arc::clone(kek));
            }
            // First, or whoever comes after the answer would still have it: where nothing is kept, each one asks.
            drop(slot);
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

    fn keep(&self, kek: (KekId, Check), live: Arc<LiveKek>) {
        let slots = &mut *self.slots();
        if slots.destroyed.contains(&kek.0) {
            return;
        }
        slots.kept.insert(kek, (live, slots.moment));
        if slots.kept.len() > KEPT_MAX {
            let oldest = slots.kept.iter().map(|(kek, (_, used))| (*used, *kek)).min_by_key(|(used, _)| *used);
            oldest.map(|(_, kek)| slots.kept.remove(&kek));
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
    this: &'a Foreign,
    question: Question,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.this.slots().asked.remove(&self.question);
    }
}

impl ProvidersError {
    fn lost() -> Self {
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
