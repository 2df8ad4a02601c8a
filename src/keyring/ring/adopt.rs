//! Taking over the ring of another node of the same cluster, and of this node from its recovery file.
//!
//! Refuses to go back: a KEK that was active here and was left is never made active by what somebody else still calls active.
//! Nothing of this node is destroyed; what the other side destroyed stays usable here. Of two rotations that cross, the own one is
//! given up, and is taken up again should the other node have turned to it. Where each node has left what the other one calls active,
//! a KEK in pre-activation that is new here is taken all the same: under it both meet again.

use super::{Entry, Former, FormerState, KekState, Ring};
use crate::types::KekId;
use crate::types::clock::UnixSeconds;

/// Why another ring cannot be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdoptError {
    /// What the other node calls active was left here.
    #[error("local KEK {0}, active on the other node, was active here before and is not any more")]
    Stale(KekId),
}

impl Ring {
    /// This ring with what `other` knows more; its active KEK becomes ours, and so does its pending one.
    ///
    /// KEKs that are new here are marked as shared and start to count at zero: each node counts its own encryptions.
    pub fn adopt(&self, other: &Self, now: UnixSeconds) -> Result<Self, AdoptError> {
        let mut ring = self.clone();
        for former in other.former() {
            ring.adopt_former(former);
        }
        ring.adopt_active(other.active(), now).or_else(|stale| if ring.meets(other) { Ok(()) } else { Err(stale) })?;
        if let Some(entry) = other.pending() {
            let found =
                ring.former.iter().position(|former| former.entry.id == entry.id && former.state == FormerState::Found);
            if found.is_some() || ring.state_of(&entry.id).is_err() {
                found.map(|index| ring.former.remove(index));
                ring = ring.giving_up_pending(now);
                ring.pending.push(adopted(entry));
            }
        }
        Ok(ring)
    }

    /// Whether the other node has left our active KEK as we have left its own, and a KEK in pre-activation is there for both.
    fn meets(&self, other: &Self) -> bool {
        let is_for_both = |next: &Entry| next.id != self.active.id && !self.has_left(&next.id);
        other.has_left(&self.active.id) && other.pending().is_some_and(is_for_both)
    }

    fn has_left(&self, id: &KekId) -> bool {
        self.former.iter().any(|former| former.entry.id == *id && former.state != FormerState::Found)
    }

    /// This ring as that of a node that has none of its own yet.
    pub fn taken_whole(&self, now: UnixSeconds) -> Self {
        let mut ring = self.clone();
        let former = ring.former.iter_mut().map(|former| &mut former.entry);
        for entry in [&mut ring.active].into_iter().chain(ring.pending.iter_mut()).chain(former) {
            *entry = adopted(entry);
        }
        ring.activated = now;
        ring
    }

    /// Without the former KEKs that cannot decrypt, destroyed ones kept: what has no key is not worth a record on another node.
    pub fn without_keyless(&self, has_key: impl Fn(&KekId) -> bool) -> Self {
        let mut ring = self.clone();
        ring.former.retain(|former| former.state == FormerState::Destroyed || has_key(&former.entry.id));
        ring.pending.retain(|entry| has_key(&entry.id));
        ring
    }

    fn adopt_active(&mut self, active: &Entry, now: UnixSeconds) -> Result<(), AdoptError> {
        let known = self.state_of(&active.id).ok();
        // What was taken in and never active here, as by an acceptance that was cut short, goes back to no key_id.
        let is_found = |former: &Former| former.entry.id == active.id && former.state == FormerState::Found;
        let next = match known {
            _ if self.former.iter().any(is_found) => {
                let index = self.former.iter().position(is_found);
                index.map_or_else(|| adopted(active), |index| self.former.remove(index).entry)
            }
            Some(KekState::Active) => return Ok(()),
            Some(KekState::PreActivation) => {
                let index = self.pending.iter().position(|entry| entry.id == active.id);
                index.map_or_else(|| adopted(active), |index| self.pending.remove(index))
            }
            Some(KekState::Deactivated | KekState::Compromised | KekState::Destroyed) => {
                return Err(AdoptError::Stale(active.id));
            }
            None => adopted(active),
        };
        let entry = std::mem::replace(&mut self.active, Entry { shared: true, ..next });
        self.activated = now;
        self.former.push(Former { entry, since: now, state: FormerState::Deactivated });
        Ok(())
    }

    fn adopt_former(&mut self, theirs: &Former) {
        if self.active.id == theirs.entry.id {
            return;
        }
        if let Some(index) = self.pending.iter().position(|entry| entry.id == theirs.entry.id) {
            // They were under it and have gone on: who turned to it now would be alone.
            if matches!(theirs.state, FormerState::Deactivated | FormerState::Compromised) {
                let entry = Entry { shared: true, ..self.pending.remove(index) };
                self.former.push(Former { entry, ..theirs.clone() });
            }
            return;
        }
        let place = self.former.iter().position(|ours| ours.entry.id == theirs.entry.id);
        match place.map(|place| &mut self.former[place]) {
            // Somebody else may have the key: true on all nodes. Gone is gone on theirs only.
            Some(ours) if theirs.state == FormerState::Compromised && ours.state == FormerState::Deactivated => {
                ours.state = FormerState::Compromised;
                ours.since = theirs.since;
            }
            // Its state is known now. It has served there since it came here: its place is behind what was left before.
            Some(ours) if ours.state == FormerState::Found && theirs.state != FormerState::Destroyed => {
                let entry = Entry { shared: true, ..ours.entry.clone() };
                self.former.retain(|former| former.entry.id != entry.id);
                self.former.push(Former { entry, ..theirs.clone() });
            }
            Some(_) => {}
            None => self.former.push(Former { entry: adopted(&theirs.entry), ..theirs.clone() }),
        }
    }
}

fn adopted(entry: &Entry) -> Entry {
    Entry { uses_reserved: 0, shared: true, ..entry.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(byte: u8) -> Entry {
        Entry { id: id(byte), created: 0, uses_reserved: 7, shared: false }
    }

    fn id(byte: u8) -> KekId {
        KekId::from_bytes([byte; 16])
    }

    fn states(ring: &Ring) -> Vec<(KekId, KekState)> {
        let mut states: Vec<_> = ring.entries().map(|(entry, state)| (entry.id, state)).collect();
        states.sort_by_key(|(id, _)| *id);
        states
    }

    #[test]
    fn a_kek_that_was_given_up_here_and_has_served_elsewhere_stands_behind_what_was_left_here_since() {
        let found = Ring::new(entry(1), 0).with_found(Entry { shared: true, ..entry(5) }, 1);
        let ours = found.with_pending(entry(2)).unwrap().activate(&id(2), 2).unwrap();
        let theirs = Ring::new(entry(5), 0).with_pending(entry(2)).unwrap().activate(&id(2), 9).unwrap();
        let places = |ring: &Ring| ring.former().iter().map(|former| former.entry.id).collect::<Vec<_>>();
        assert_eq!(places(&ours), [id(5), id(1)]);
        let ring = ours.adopt(&theirs, 10).unwrap();
        assert_eq!(places(&ring), [id(1), id(5)]);
        assert_eq!(states(&ring)[2], (id(5), KekState::Deactivated));
    }

    #[test]
    fn the_other_nodes_active_and_pending_keks_become_ours_and_our_own_goes_on_decrypting() {
        let other = Ring::new(entry(1), 0).with_pending(entry(2)).unwrap().activate(&id(2), 1).unwrap();
        let other = other.with_pending(entry(3)).unwrap();
        let ring = Ring::new(entry(9), 5).adopt(&other, 6).unwrap();
        assert_eq!(
            states(&ring),
            [
                (id(1), KekState::Deactivated),
                (id(2), KekState::Active),
                (id(3), KekState::PreActivation),
                (id(9), KekState::Deactivated),
            ]
        );
        assert!(ring.active().shared && ring.active().uses_reserved == 0);
        assert_eq!(states(&ring.adopt(&other, 7).unwrap()), states(&ring), "a second time changes nothing");
    }

    #[test]
    fn two_rotations_that_cross_end_under_one_kek() {
        let both = Ring::new(entry(1), 0).all_shared();
        let (a, b) = (both.with_pending(entry(2)).unwrap(), both.with_pending(entry(3)).unwrap());
        let (a, b) = (a.adopt(&b, 1).unwrap(), b.adopt(&a, 1).unwrap());
        let (a, b) = (a.activate(&id(3), 2).unwrap(), b.activate(&id(2), 2).unwrap());
        assert_eq!(b.adopt(&a, 3).unwrap().active().id, id(3));
        assert_eq!(a.adopt(&b, 3).unwrap().active().id, id(2));
    }

    #[test]
    fn a_kek_that_was_left_here_is_not_taken_back() {
        let other = Ring::new(entry(1), 0);
        let ours = other.with_pending(entry(2)).unwrap().activate(&id(2), 1).unwrap();
        assert_eq!(ours.adopt(&other, 3), Err(AdoptError::Stale(id(1))));
    }

    #[test]
    fn what_the_other_node_destroyed_stays_here_and_what_it_calls_compromised_is_that_here_too() {
        let both = Ring::new(entry(1), 0).with_pending(entry(2)).unwrap().activate(&id(2), 1).unwrap();
        let both = both.with_pending(entry(3)).unwrap().activate(&id(3), 2).unwrap();
        let other = both.retire(&id(1), super::super::RetireTo::Destroyed, 3).unwrap();
        let other = other.retire(&id(2), super::super::RetireTo::Compromised, 3).unwrap();
        let ring = both.adopt(&other, 4).unwrap();
        assert_eq!(
            states(&ring),
            [(id(1), KekState::Deactivated), (id(2), KekState::Compromised), (id(3), KekState::Active)]
        );
    }
}
