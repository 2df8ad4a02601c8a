//! What a start makes of the ring that it has read, of what was lost, and of which KEKs open. Pure: it never fails, and whatever it
//! decides, no KEK that was left becomes active again and no private KEK takes the place of a shared one.

use std::collections::HashSet;

use super::{FormerState, KekState, Ring};
use crate::types::KekId;
use crate::types::clock::UnixSeconds;

/// What the newest state was, when another one had to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The newest state was read.
    Nothing,
    /// It is known to be old, and the operator takes it as it is.
    RolledBack,
    /// One reservation of uses: changes of keys are in both generations.
    Reservation,
    /// A state of release 0.1, which had changes of keys in one generation: it may have left the active KEK.
    Unknown,
}

/// Everything that the decision depends on.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// See [`Lost`].
    pub lost: Lost,
    /// KEKs that are in memory.
    pub opens: &'a HashSet<KekId>,
    /// Providers have copies of what is reported, so that other nodes read what this one writes under whichever KEK.
    pub has_copies: bool,
    /// Encryptions in the largest reservation.
    pub block_uses: u64,
}

/// What encrypts from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encrypts {
    /// The active KEK of the ring.
    Active,
    /// A KEK that has to be made, and to become active before anything is reported.
    New,
    /// Nothing on this node: the active KEK does not open, and other nodes have it. Providers, while they answer.
    Providers,
    /// Nothing at all: the only copy of the active KEK does not open. Its file has to come back.
    Nothing,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// The ring to go on with.
    pub ring: Ring,
    /// See [`Encrypts`].
    pub encrypts: Encrypts,
}

impl Ring {
    /// See the module.
    pub fn resume(&self, facts: &Facts<'_>, now: UnixSeconds) -> Resumed {
        let Facts { lost, opens, has_copies, block_uses } = facts;
        let ring = match lost {
            Lost::Nothing => self.clone(),
            Lost::Reservation => self.with_reservation(self.active.uses_reserved.saturating_add(*block_uses)),
            // The pending one may have been active in what is lost.
            Lost::RolledBack | Lost::Unknown => self.with_pending_uses(*block_uses).without_pending(now),
        };
        let opens_active = opens.contains(&ring.active.id);
        let must_leave = matches!(lost, Lost::RolledBack | Lost::Unknown) && !ring.active.shared;
        if opens_active && must_leave {
            return Resumed { encrypts: Encrypts::New, ring };
        }
        if opens_active {
            // Shared, and a reservation of the lost state is unknown.
            let uses = ring.active.uses_reserved.saturating_add(*block_uses);
            let ring =
                if *lost == Lost::Unknown || *lost == Lost::RolledBack { ring.with_reservation(uses) } else { ring };
            return Resumed { encrypts: Encrypts::Active, ring };
        }
        if !has_copies {
            return Resumed { encrypts: Encrypts::Nothing, ring };
        }
        if ring.active.shared {
            return Resumed { encrypts: Encrypts::Providers, ring };
        }
        let pending = ring.pending().map(|entry| entry.id);
        match pending.filter(|id| opens.contains(id)).and_then(|id| ring.activate(&id, now).ok()) {
            Some(turned) => Resumed { encrypts: Encrypts::Active, ring: turned },
            None => Resumed { encrypts: Encrypts::New, ring: ring.without_pending(now) },
        }
    }

    /// How many former KEKs of this state there are; for tests and limits.
    pub fn count(&self, state: FormerState) -> usize {
        self.former.iter().filter(|former| former.state == state).count()
    }

    /// Whether this KEK was destroyed here.
    pub fn is_destroyed(&self, id: &KekId) -> bool {
        self.entries().any(|(entry, state)| entry.id == *id && state == KekState::Destroyed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Entry, Former};
    use super::*;

    fn entry(byte: u8, shared: bool) -> Entry {
        Entry { id: KekId::from_bytes([byte; 16]), created: 0, uses_reserved: 7, shared }
    }

    prop_compose! {
        fn rings()(
            active_shared: bool,
            pending in proptest::option::of(any::<bool>()),
            former in proptest::collection::vec((0u8..4, any::<bool>()), 0..4),
        ) -> Ring {
            let states =
                [FormerState::Compromised, FormerState::Deactivated, FormerState::Destroyed, FormerState::Found];
            let former = former.into_iter().enumerate().map(|(at, (state, shared))| Former {
                entry: entry(10 + u8::try_from(at).unwrap(), shared),
                since: 3,
                state: states[usize::from(state)],
            });
            let pending = pending.map(|shared| entry(2, shared)).into_iter().collect();
            Ring::from_parts(entry(1, active_shared), 5, pending, former.collect()).unwrap()
        }
    }

    fn lost() -> impl Strategy<Value = Lost> {
        prop_oneof![Just(Lost::Nothing), Just(Lost::RolledBack), Just(Lost::Reservation), Just(Lost::Unknown)]
    }

    proptest! {
        #[test]
        fn a_start_always_decides_and_never_goes_back(
            ring in rings(),
            lost in lost(),
            has_copies: bool,
            which in proptest::collection::vec(any::<bool>(), 16),
        ) {
            let ids: Vec<KekId> = ring.entries().map(|(entry, _)| entry.id).collect();
            let opens: HashSet<KekId> =
                ids.iter().zip(which).filter(|(_, opens)| *opens).map(|(id, _)| *id).collect();
            let facts = Facts { lost, opens: &opens, has_copies, block_uses: 100 };
            let Resumed { ring: next, encrypts } = ring.resume(&facts, 9);
            // Nothing is forgotten.
            prop_assert!(ids.iter().all(|id| next.entries().any(|(entry, _)| entry.id == *id)));
            // What was left is not active again, and a destroyed one stays so.
            prop_assert!(ring.former().iter().all(|former| former.entry.id != next.active().id));
            prop_assert!(ring.former().iter().all(|former| next.former().contains(former)));
            match encrypts {
                Encrypts::Active => prop_assert!(opens.contains(&next.active().id)),
                // A new KEK is private: nothing shared makes place for it where nobody has copies.
                Encrypts::New => {
                    prop_assert!(!next.active().shared);
                    prop_assert!(next.pending().is_none(), "there is room for it");
                }
                Encrypts::Providers => prop_assert!(has_copies && next.active().shared),
                Encrypts::Nothing => prop_assert!(!has_copies && !opens.contains(&next.active().id)),
            }
            // No private KEK takes the place of a shared one.
            prop_assert!(!ring.active().shared || next.active().id == ring.active().id);
            // Whatever the lost state allowed is counted.
            if lost != Lost::Nothing && encrypts == Encrypts::Active && next.active().id == ring.active().id {
                prop_assert!(next.active().uses_reserved >= ring.active().uses_reserved + 100);
            }
            // The same start once more decides the same way.
            if encrypts != Encrypts::New {
                let again = next.resume(&Facts { lost: Lost::Nothing, ..facts.clone() }, 10);
                prop_assert_eq!(&again.ring, &next);
            }
        }
    }
}
