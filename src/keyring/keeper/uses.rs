//! Reservations: how many encryptions the disk knows of before they are made. Blocks grow, so that a process that ends at once
//! costs little of a KEK's limit, and one that works for long writes seldom.

use super::{Keeper, trouble};
use crate::keyring::uses::{FIRST_BLOCK_USES, hard_limit, next_block};
use crate::store::Disk;

/// How large the next one is.
pub(super) struct Blocks {
    next_uses: u64,
}

impl Default for Blocks {
    fn default() -> Self {
        Self { next_uses: FIRST_BLOCK_USES }
    }
}

impl Blocks {
    /// The first one, for a KEK that has just become active.
    pub(super) fn first(&mut self) -> u64 {
        self.next_uses = next_block(FIRST_BLOCK_USES);
        FIRST_BLOCK_USES
    }
}

impl<D: Disk + Clone> Keeper<'_, D> {
    /// At the start: what comes after it lives from this block. Without it the node decrypts, and the next Encrypt asks again.
    pub(super) fn reserve_first(&mut self) {
        let reserved = self.ring().active().uses_reserved;
        self.blocks = Blocks::default();
        self.reserve_up_to(reserved.saturating_add(FIRST_BLOCK_USES));
    }

    /// Makes sure that uses lie ahead of the counter.
    pub(super) fn reserve(&mut self) {
        let reserved = self.ring().active().uses_reserved;
        let used = self.keyring.uses().unwrap_or(reserved);
        let block = self.blocks.next_uses;
        if reserved > used.saturating_add(block / 2) || reserved >= hard_limit(self.ring().active().shared) {
            return;
        }
        self.reserve_up_to(reserved.saturating_add(block));
    }

    fn reserve_up_to(&mut self, uses: u64) {
        match self.books.reserve(self.ring().with_reservation(uses)) {
            Ok(()) => {
                self.blocks.next_uses = next_block(self.blocks.next_uses);
                self.keyring.extend(self.ring().active().uses_reserved);
            }
            Err(error) => {
                self.keyring.refuse_block();
                trouble("reserve uses of the local KEK", &error);
            }
        }
    }

    /// At a clean stop the true count is known. Never below what was handed out: nothing is handed out any more.
    pub(super) fn give_back_uses(&mut self) {
        let active = self.ring().active().clone();
        let Some((id, used)) = self.keyring.close_uses() else { return };
        if id != active.id || used >= active.uses_reserved {
            return;
        }
        if let Err(error) = self.books.reserve(self.ring().with_true_uses(used)) {
            trouble("note how often the local KEK was used", &error);
        }
    }
}
