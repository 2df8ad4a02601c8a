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

    /// When the active KEK is due by its age.
    pub fn due(self, ring: &Ring) -> UnixSeconds {
        ring.activated().saturating_add(self.0.as_secs())
    }

    /// Whether the active KEK must be replaced. A clock that went back makes it young, never old.
    pub fn is_due(self, ring: &Ring, now: UnixSeconds) -> bool {
        now >= self.due(ring) || ring.active().uses_reserved >= rotate_at(ring.active().shared)
    }
}

const DAY_SECONDS: u64 = 24 * 3600;

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
}
