//! Counts the encryptions of the active KEK, such that a crash can only make the count too high.
//!
//! Blocks are reserved on disk before they are used; what a crash leaves unused is lost to the count and to nothing else.

use std::sync::atomic::{AtomicU64, Ordering};

/// Encryptions. NIST SP 800-38D §8.3: at most 2^32 with random 96-bit nonces under one key.
pub const HARD_LIMIT_USES: u64 = 1 << 32;
/// Encryptions. Half of the hard limit, so that a rotation that fails for months still leaves room.
pub const ROTATE_AT_USES: u64 = 1 << 31;
/// Nodes that may share one KEK by bundles. Each counts its own encryptions, so that each gets this part of the limits.
pub const SHARERS_MAX: u64 = 16;

/// The hard limit on one node.
pub(super) const fn hard_limit(shared: bool) -> u64 {
    if shared { HARD_LIMIT_USES / SHARERS_MAX } else { HARD_LIMIT_USES }
}

/// Where a rotation is due on one node.
pub(super) const fn rotate_at(shared: bool) -> u64 {
    if shared { ROTATE_AT_USES / SHARERS_MAX } else { ROTATE_AT_USES }
}

/// Encryptions in one reservation: one small write a 65,536 encryptions, and 32,768 crashes until a rotation is due by them alone.
pub const RESERVED_BLOCK_USES: u64 = 1 << 16;

/// What one encryption may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// Never again with this KEK.
    Exhausted,
    /// Go on.
    Granted,
    /// Go on, and let the next block be reserved.
    GrantedAndLow,
    /// Wait for the next block.
    Wait,
}

/// The counter of one KEK.
pub(super) struct UseCounter {
    next: AtomicU64,
    reserved: AtomicU64,
    limit: AtomicU64,
}

impl UseCounter {
    /// `used` were claimed or lost before; up to `reserved` are safe on disk; at most `limit` in all.
    pub(super) fn new(used: u64, reserved: u64, limit: u64) -> Self {
        Self { next: AtomicU64::new(used), reserved: AtomicU64::new(reserved), limit: AtomicU64::new(limit) }
    }

    /// From now on at most so many in all.
    pub(super) fn limit_to(&self, limit: u64) {
        self.limit.fetch_min(limit, Ordering::AcqRel);
    }

    /// Takes one use.
    pub(super) fn claim(&self) -> Claim {
        let limit = self.limit.load(Ordering::Acquire);
        let reserved = self.reserved.load(Ordering::Acquire).min(limit);
        let taken =
            self.next.fetch_update(Ordering::AcqRel, Ordering::Acquire, |next| (next < reserved).then(|| next + 1));
        match taken {
            Ok(next) if reserved - next == RESERVED_BLOCK_USES / 2 => Claim::GrantedAndLow,
            Ok(_) => Claim::Granted,
            Err(next) if next >= limit => Claim::Exhausted,
            Err(_) => Claim::Wait,
        }
    }

    /// A block up to `reserved` is safe on disk.
    pub(super) fn extend(&self, reserved: u64) {
        self.reserved.fetch_max(reserved, Ordering::AcqRel);
    }

    /// Claimed or lost so far.
    pub(super) fn used(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }
}

#[cfg(test)]
impl UseCounter {
    /// Can be claimed without another block.
    pub(super) fn left(&self) -> u64 {
        self.reserved.load(Ordering::Acquire) - self.used()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_asks_for_the_next_one_at_its_half_and_waits_at_its_end() {
        let counter = UseCounter::new(0, RESERVED_BLOCK_USES, HARD_LIMIT_USES);
        let claims: Vec<Claim> = (0..RESERVED_BLOCK_USES).map(|_| counter.claim()).collect();
        assert_eq!(claims.iter().filter(|claim| **claim == Claim::GrantedAndLow).count(), 1);
        assert!(!claims.contains(&Claim::Wait));
        assert_eq!(counter.claim(), Claim::Wait);
        counter.extend(2 * RESERVED_BLOCK_USES);
        assert_eq!(counter.claim(), Claim::Granted);
        assert_eq!(counter.used(), RESERVED_BLOCK_USES + 1);
    }

    #[test]
    fn the_hard_limit_refuses_whatever_was_reserved() {
        let counter = UseCounter::new(HARD_LIMIT_USES - 1, HARD_LIMIT_USES + RESERVED_BLOCK_USES, HARD_LIMIT_USES);
        assert_eq!(counter.claim(), Claim::Granted);
        assert_eq!(counter.claim(), Claim::Exhausted);
        assert_eq!(counter.claim(), Claim::Exhausted);
    }
}
