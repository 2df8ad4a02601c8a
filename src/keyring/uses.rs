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

/// Encryptions in the largest reservation: one small write for 65,536 encryptions.
pub const RESERVED_BLOCK_USES: u64 = 1 << 16;
/// Encryptions in the first reservation of a process, so that one that ends at once costs little of the limit.
pub const FIRST_BLOCK_USES: u64 = 1 << 10;

/// The reservation that follows one of this size.
pub(super) const fn next_block(uses: u64) -> u64 {
    let next = uses * 8;
    if next > RESERVED_BLOCK_USES { RESERVED_BLOCK_USES } else { next }
}

/// Encryptions that no counter reaches: each start counts one block, also above the limit of a KEK. Far below where a sum overflows.
pub(super) const USES_END: u64 = 1 << 48;

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
    /// So many before the end of what is reserved, the next block is asked for.
    low: AtomicU64,
}

impl UseCounter {
    /// `used` were claimed or lost before; up to `reserved` are safe on disk; at most `limit` in all.
    pub(super) fn new(used: u64, reserved: u64, limit: u64) -> Self {
        Self {
            next: AtomicU64::new(used),
            reserved: AtomicU64::new(reserved),
            limit: AtomicU64::new(limit),
            low: AtomicU64::new(0),
        }
    }

    /// Takes no more uses, and says how many were taken. For the end of the process.
    pub(super) fn close(&self) -> u64 {
        // Above every limit: whoever comes later gets nothing.
        self.next.swap(u64::MAX, Ordering::AcqRel)
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
            Ok(next) if reserved - next == self.low.load(Ordering::Acquire) => Claim::GrantedAndLow,
            Ok(_) => Claim::Granted,
            Err(next) if next >= limit => Claim::Exhausted,
            Err(_) => Claim::Wait,
        }
    }

    /// A block up to `reserved` is safe on disk.
    pub(super) fn extend(&self, reserved: u64) {
        let before = self.reserved.fetch_max(reserved, Ordering::AcqRel);
        let left = reserved.saturating_sub(self.used());
        if reserved > before {
            self.low.store((left / 2).max(1), Ordering::Release);
        }
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
        let counter = UseCounter::new(0, 0, HARD_LIMIT_USES);
        counter.extend(RESERVED_BLOCK_USES);
        let claims: Vec<Claim> = (0..RESERVED_BLOCK_USES).map(|_| counter.claim()).collect();
        assert_eq!(claims.iter().filter(|claim| **claim == Claim::GrantedAndLow).count(), 1);
        assert!(!claims.contains(&Claim::Wait));
        assert_eq!(counter.claim(), Claim::Wait);
        counter.extend(2 * RESERVED_BLOCK_USES);
        assert_eq!(counter.claim(), Claim::Granted);
        assert_eq!(counter.used(), RESERVED_BLOCK_USES + 1);
    }

    #[test]
    fn a_counter_that_was_closed_says_how_many_were_taken_and_gives_no_more() {
        let counter = UseCounter::new(5, 5, HARD_LIMIT_USES);
        counter.extend(5 + FIRST_BLOCK_USES);
        assert_eq!([counter.claim(), counter.claim()], [Claim::Granted; 2]);
        assert_eq!(counter.close(), 7);
        assert_eq!(counter.claim(), Claim::Exhausted);
    }

    #[test]
    fn blocks_grow_from_the_first_to_the_largest() {
        let second = next_block(FIRST_BLOCK_USES);
        assert_eq!([second, next_block(second), next_block(RESERVED_BLOCK_USES)], [8192, 65_536, 65_536]);
    }

    #[test]
    fn the_hard_limit_refuses_whatever_was_reserved() {
        let counter = UseCounter::new(HARD_LIMIT_USES - 1, HARD_LIMIT_USES + RESERVED_BLOCK_USES, HARD_LIMIT_USES);
        assert_eq!(counter.claim(), Claim::Granted);
        assert_eq!(counter.claim(), Claim::Exhausted);
        assert_eq!(counter.claim(), Claim::Exhausted);
    }
}
