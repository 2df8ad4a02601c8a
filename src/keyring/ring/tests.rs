//! Moves of the ring, single ones and any sequence of them.

use proptest::prelude::*;

use super::*;

fn entry(byte: u8) -> Entry {
    Entry { id: KekId::from_bytes([byte; 16]), created: 0, uses_reserved: 0, shared: false }
}

fn id(byte: u8) -> KekId {
    KekId::from_bytes([byte; 16])
}

#[test]
fn rotation_is_two_moves_and_the_old_kek_goes_on_decrypting() {
    let ring = Ring::new(entry(1), 10).with_pending(entry(2)).unwrap();
    assert_eq!(ring.active().id, id(1), "a pending KEK changes nothing yet");
    let ring = ring.activate(&id(2), 20).unwrap();
    assert_eq!((ring.active().id, ring.activated()), (id(2), 20));
    assert_eq!(ring.former()[0].state, FormerState::Deactivated);
}

#[test]
fn what_was_active_never_becomes_active_again() {
    let ring = Ring::new(entry(1), 0).with_pending(entry(2)).unwrap().activate(&id(2), 1).unwrap();
    assert_eq!(ring.activate(&id(1), 2), Err(MoveError::Former));
    assert_eq!(ring.activate(&id(2), 2), Err(MoveError::Active));
    assert_eq!(ring.activate(&id(9), 2), Err(MoveError::Unknown));
    let ring = ring.retire(&id(1), RetireTo::Destroyed, 3).unwrap();
    assert_eq!(ring.activate(&id(1), 4), Err(MoveError::Destroyed));
    assert_eq!(ring.retire(&id(1), RetireTo::Compromised, 4), Err(MoveError::Destroyed));
}

#[test]
fn the_active_kek_is_never_retired() {
    let ring = Ring::new(entry(1), 0);
    for to in [RetireTo::Compromised, RetireTo::Destroyed] {
        assert_eq!(ring.retire(&id(1), to, 1), Err(MoveError::Active));
    }
}

#[test]
fn a_reservation_never_goes_back() {
    let ring = Ring::new(entry(1), 0).with_reservation(100).with_reservation(50);
    assert_eq!(ring.active().uses_reserved, 100);
}

proptest! {
    /// Any sequence of moves: one active KEK, no id twice, no KEK lost, no key_id twice.
    #[test]
    fn no_sequence_of_moves_loses_a_kek_or_brings_one_back(moves in prop::collection::vec((0u8..4, 0u8..8), 0..60)) {
        let mut ring = Ring::new(entry(0), 0);
        let (mut next, mut was_active) = (1u8, vec![id(0)]);
        for (now, (kind, target)) in moves.into_iter().enumerate() {
            let (now, known) = (now as u64, ring.entries().count());
            let result = match kind {
                0 => ring.with_pending(entry(next)),
                1 => ring.activate(&id(target), now),
                2 => ring.retire(&id(target), RetireTo::Compromised, now),
                _ => ring.retire(&id(target), RetireTo::Destroyed, now),
            };
            if let Ok(moved) = result {
                if moved.active().id != ring.active().id {
                    prop_assert!(!was_active.contains(&moved.active().id));
                    was_active.push(moved.active().id);
                }
                next += u8::from(kind == 0);
                prop_assert_eq!(moved.entries().count(), known + usize::from(kind == 0));
                ring = Ring::from_parts(moved.active.clone(), moved.activated, moved.pending.clone(), moved.former.clone()).unwrap();
                prop_assert_eq!(&ring, &moved);
            }
        }
    }
}
