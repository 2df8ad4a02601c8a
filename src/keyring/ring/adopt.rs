//! Taking over the ring of another node of the same cluster, and of this node from its recovery file.
//!
//! Refuses to go back: a KEK that was active here and was left is never made active by what somebody else still calls active.
//! Nothing of this node is given up; what the other side destroyed stays usable here.

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
        ring.adopt_active(other.active(), now)?;
        if let Some(entry) = other.pending()
            && ring.state_of(&entry.id).is_err()
        {
            ring = ring.without_pending(now);
            ring.pending.push(adopted(entry));
        }
        Ok(ring)
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
        let next = match known {
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
        if self.active.id == theirs.entry.id || self.pending.iter().any(|entry| entry.id == theirs.entry.id) {
            return;
        }
        match self.former.iter_mut().find(|ours| ours.entry.id == theirs.entry.id) {
            // Somebody else may have the key: true on all nodes. Gone is gone on theirs only.
            Some(ours) if theirs.state == FormerState::Compromised && ours.state == FormerState::Deactivated => {
                ours.state = FormerState::Compromised;
                ours.since = theirs.since;
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
