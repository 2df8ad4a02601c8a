//! KEKs of other nodes, opened by providers when a text needs one. All that ask for the same one at the same time are one question;
//! the answers stay in memory up to a bound, the least recently used going first.
//!
//! An answer is known to be right by the check value that the text brings along. It is kept under id and check value together, so
//! that a text with wraps of somebody else's making spoils nothing for the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::snapshot::LiveKek;
use crate::keyring::attached::{Brought, Check};
use crate::keyring::rooted::{ProvidersError, Rooted};
use crate::keyring::uses::UseCounter;
use crate::provider::set::Owned;
use crate::sandbox::memory::LockedKey;
use crate::types::{ClusterId, KekId, Key};

/// KEKs of other nodes in memory: a node a rotation; design §5.
const KEPT_MAX: usize = 4096;

type Found = Result<Arc<LiveKek>, ProvidersError>;

enum Slot {
    /// A question is under way.
    Asked(watch::Receiver<Option<Found>>),
    /// With the moment of its last use.
    Kept(Arc<LiveKek>, u64),
}

#[derive(Default)]
struct Slots {
    by_kek: HashMap<(KekId, Check), Slot>,
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
    ) -> Result<Opened, ProvidersError> {
        let (mut answer, is_new) = {
            let slots = &mut *self.slots();
            slots.moment += 1;
            match slots.by_kek.get_mut(&(id, brought.check)) {
                Some(Slot::Kept(kek, used)) => {
                    *used = slots.moment;
                    return Ok(Opened { kek: Arc::clone(kek), is_new: false });
                }
                Some(Slot::Asked(answer)) => (answer.clone(), false),
                None => (self.ask(slots, rooted, cluster, id, brought, keep), true),
            }
        };
        let lost = || ProvidersError::lost();
        let found = match answer.wait_for(Option::is_some).await {
            Ok(found) => found.clone().ok_or_else(lost)?,
            Err(_) => return Err(lost()),
        };
        found.map(|kek| Opened { kek, is_new })
    }

    /// On the providers' runtime, so that a caller that gives up takes nobody's answer along.
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
        slots.by_kek.insert((id, brought.check), Slot::Asked(answer.clone()));
        let (providers, cluster, this) = (rooted.providers.clone(), cluster.clone(), self.clone());
        rooted.runtime.spawn(async move {
            // Also when this task is dropped in the middle: those who wait learn it by the closed channel, and the next one asks anew.
            let slot = Asked { this: &this, kek: (id, brought.check) };
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

    fn keep(&self, kek: (KekId, Check), live: Arc<LiveKek>) {
        let slots = &mut *self.slots();
        let moment = slots.moment;
        slots.by_kek.insert(kek, Slot::Kept(live, moment));
        let kept = |slot: &Slot| match slot {
            Slot::Kept(_, used) => Some(*used),
            Slot::Asked(_) => None,
        };
        if slots.by_kek.values().filter_map(kept).count() > KEPT_MAX {
            let oldest =
                slots.by_kek.iter().filter_map(|(kek, slot)| Some((kept(slot)?, *kek))).min_by_key(|(at, _)| *at);
            oldest.map(|(_, kek)| slots.by_kek.remove(&kek));
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question that has not ended in a KEK that is kept leaves no slot behind.
struct Asked<'a> {
    this: &'a Foreign,
    kek: (KekId, Check),
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let slots = &mut *self.this.slots();
        if matches!(slots.by_kek.get(&self.kek), Some(Slot::Asked(_))) {
            slots.by_kek.remove(&self.kek);
        }
    }
}

impl ProvidersError {
    fn lost() -> Self {
        Self::ours(
            "the question to the providers was given up",
            "ask again; if it stays, restart nodeseald and report it",
        )
    }

    fn memory() -> Self {
        Self::ours("no memory for a key", "free memory, or raise the limit of locked memory")
    }
}

#[cfg(test)]
mod tests;
