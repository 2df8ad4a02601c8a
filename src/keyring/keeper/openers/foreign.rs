//! Who may take the place of a provider that is handed what Nodeseal has not made.
//!
//! Nothing is kept here that shows who opens such texts, and two plugins may give their keys one name. So of those that are left only these
//! count: one that has opened what the key has made, and one that stands under the same name as the one that leaves, with the same key, and has
//! not run beside it. One that is known to have another key never counts, and does not leave unnoticed either: what it has made itself nobody
//! else opens.

use std::collections::HashSet;

use super::{Keeper, Needed, Way, Why};
use crate::store::Disk;

impl Needed {
    /// Whether one leaves and nobody who counts takes its place.
    pub(super) fn loses_a_way(
        &self,
        twins: &[Way<'_>],
        before: &[Way<'_>],
        next: &[Way<'_>],
        openers: &HashSet<String>,
    ) -> bool {
        let has_opened = |next: &Way<'_>| next.is_sure && openers.contains(next.member.name()) && self.has(next);
        let is_vouched_for = next.iter().any(|next| !next.member.is_twin() && has_opened(next));
        self.leaves_in(twins, next) || (!is_vouched_for && !self.keeps_names(twins, before, next))
    }

    /// Whether each one that leaves has a successor under its name.
    pub(super) fn keeps_names(&self, twins: &[Way<'_>], before: &[Way<'_>], next: &[Way<'_>]) -> bool {
        let has_run = |next: &Way<'_>| twins.iter().chain(before).any(|way| way.member.is(next.member));
        let succeeds = |way: &Way<'_>, next: &Way<'_>| {
            let is_same = next.member.name() == way.member.name() && self.has(next);
            is_same && next.is_sure && !next.member.is_twin() && !has_run(next)
        };
        let stays = |way: &Way<'_>| next.iter().any(|next| next.member.is(way.member) || succeeds(way, next));
        before.iter().filter(|way| self.has(way)).all(stays)
    }
}

impl<D: Disk + Clone> Keeper<'_, D> {
    /// Whether it has made nothing that a provider could show to have its key with, and is handed what Nodeseal has not made.
    pub(super) fn has_only_foreign_texts(&self, needed: &Needed) -> bool {
        let is_foreign = |key| self.state().marks.foreign().any(|foreign| foreign == key);
        // There may be a thousand keys, and each specimen takes a digest.
        if needed.why != Why::Others || !needed.any_of.iter().all(is_foreign) {
            return false;
        }
        let specimens = self.specimens();
        let is_shown = |(kind, key)| specimens.iter().any(|one| (one.wrap.kind, &one.wrap.identity) == (kind, key));
        !needed.any_of.iter().any(|key| is_shown((key.0, &key.1)))
    }
}
