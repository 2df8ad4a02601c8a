//! When a local KEK is due for replacement: by age or by use, whichever comes first (docs/architecture.md, "States of a local KEK").

use std::time::Duration;

use super::ring::Ring;
use super::uses::rotate_at;
use crate::types::clock::UnixSeconds;

/// How old an active KEK may become. NIST SP 800-57 Part 1 table 1 allows up to two years; the KEP asks for 90 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxAge(Duration);

impl MaxAge {
    /// 90 days: KEP-3299 on the rotation of KEKs.
    pub const DEFAULT: Self = Self(Duration::from_secs(90 * DAY_SECONDS));
    /// An hour: below it, kube-apiserver would spend its time with storage migrations.
    pub const MIN: Duration = Duration::from_secs(3600);
    /// Two years: SP 800-57 Part 1, originator usage period of a key-wrapping key.
    pub const MAX: Duration = Duration::from_secs(2 * 366 * DAY_SECONDS);

    /// Within [`MaxAge::MIN`] and [`MaxAge::MAX`].
    pub fn new(age: Duration) -> Option<Self> {
        (Self::MIN..=Self::MAX).contains(&age).then_some(Self(age))
    }

    /// As a time.
    pub const fn get(self) -> Duration {
        self.0
    }

    /// When the active KEK is due by its age.
    pub fn due(self, ring: &Ring) -> UnixSeconds {
        ring.activated().saturating_add(self.0.as_secs())
    }

    /// How near it is, if that is to be told: at most so many days. Never for a KEK that is replaced more often than that.
    pub fn is_near(self, ring: &Ring, now: UnixSeconds) -> Option<u64> {
        near(self.due(ring).saturating_sub(now), self.0.as_secs())
    }

    /// Whether the active KEK must be replaced. A clock that went back makes it young, never old.
    pub fn is_due(self, ring: &Ring, now: UnixSeconds) -> bool {
        now >= self.due(ring) || ring.active().uses_reserved >= rotate_at(ring.active().shared)
    }
}

/// Which mark is reached of something that lasts for so long, with so much of it left, both in seconds.
pub(super) fn near(left: u64, lasts: u64) -> Option<u64> {
    let mut marks = NEAR_DAYS.into_iter().filter(|days| days * DAY_SECONDS < lasts);
    marks.find(|days| left <= days * DAY_SECONDS)
}

const DAY_SECONDS: u64 = 24 * 3600;
/// Days before it is due at which that is told, the nearest first.
const NEAR_DAYS: [u64; 3] = [1, 7, 30];

#[cfg(test)]
mod tests {
    use super::super::ring::Entry;
    use super::super::uses::ROTATE_AT_USES;
    use super::*;
    use crate::types::KekId;

    #[test]
    fn a_kek_is_due_by_age_or_by_use_and_a_clock_that_went_back_changes_nothing() {
        let entry = Entry { id: KekId::from_bytes([1; 16]), created: 0, uses_reserved: 0, shared: false };
        let ring = Ring::new(entry, 1_000_000);
        let age = MaxAge::DEFAULT;
        let due_at = 1_000_000 + 90 * DAY_SECONDS;
        assert!(!age.is_due(&ring, due_at - 1) && age.is_due(&ring, due_at) && !age.is_due(&ring, 0));
        assert!(!age.is_due(&ring.with_reservation(ROTATE_AT_USES - 1), 1_000_000));
        assert!(age.is_due(&ring.with_reservation(ROTATE_AT_USES), 1_000_000));
    }

    #[test]
    fn that_a_kek_is_due_is_told_thirty_seven_and_one_day_before_unless_it_never_lives_for_so_long() {
        let entry = Entry { id: KekId::from_bytes([1; 16]), created: 0, uses_reserved: 0, shared: false };
        let ring = Ring::new(entry, 0);
        let near =
            |age: u64, now: u64| MaxAge(Duration::from_secs(age * DAY_SECONDS)).is_near(&ring, now * DAY_SECONDS);
        let told = [59, 60, 82, 83, 88, 89, 90, 200].map(|now| near(90, now));
        assert_eq!(told, [None, Some(30), Some(30), Some(7), Some(7), Some(1), Some(1), Some(1)]);
        assert_eq!((near(7, 1), near(7, 6), near(1, 1)), (None, Some(1), None));
    }
}
