//! What Decrypts have told since the start: which KEK opened something last, and what was refused. For the operator, who asks before a
//! KEK is destroyed, and when objects cannot be read.
//!
//! In memory alone: no Decrypt writes to a disk. Bounded by the KEKs of this node and the classes of errors; of a KEK that this node
//! does not have the last one is kept.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use crate::types::clock::UnixSeconds;
use crate::types::{Class, KekId, lock};

/// Shared by all calls.
#[derive(Default)]
pub(super) struct Tally(Mutex<Told>);

/// See [`Tally`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// When each KEK of this node opened a text last.
    pub opened: BTreeMap<KekId, UnixSeconds>,
    /// Decrypts that were refused, by [`Class::label`].
    pub refused: BTreeMap<&'static str, u64>,
    /// Texts of KEKs that this node does not have.
    pub unknown: Option<Unknown>,
}

/// Texts of KEKs that neither this node nor a provider has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// How many Decrypts.
    pub count: u64,
    /// Of the last one.
    pub kek: KekId,
    /// Of the last one.
    pub at: UnixSeconds,
}

impl Tally {
    pub(super) fn opened(&self, kek: KekId, now: UnixSeconds) {
        self.told().opened.insert(kek, now);
    }

    pub(super) fn refused(&self, class: Class) {
        *self.told().refused.entry(class.label()).or_default() += 1;
    }

    pub(super) fn unknown(&self, kek: KekId, now: UnixSeconds) {
        let mut told = self.told();
        let count = told.unknown.as_ref().map_or(0, |unknown| unknown.count) + 1;
        told.unknown = Some(Unknown { count, kek, at: now });
    }

    pub(super) fn read(&self) -> Told {
        self.told().clone()
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        lock::lock(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_time_and_the_last_kek_are_kept_and_all_refusals_are_counted() {
        let tally = Tally::default();
        let [one, other] = [[1; 16], [2; 16]].map(KekId::from_bytes);
        [(one, 5), (other, 6), (one, 7)].into_iter().for_each(|(kek, at)| tally.opened(kek, at));
        [(one, 8), (other, 9)].into_iter().for_each(|(kek, at)| tally.unknown(kek, at));
        [Class::NotFound, Class::NotFound, Class::Corrupt].into_iter().for_each(|class| tally.refused(class));
        let told = tally.read();
        assert_eq!(told.opened, BTreeMap::from([(one, 7), (other, 6)]));
        assert_eq!(told.refused, BTreeMap::from([("corrupt", 1), ("not_found", 2)]));
        assert_eq!(told.unknown, Some(Unknown { count: 2, kek: other, at: 9 }));
    }
}
