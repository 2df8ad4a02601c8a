//! Bundles that cross, and a rotation that others have gone past.

use super::operations::bundle_of_member;
use super::others::{accept, entry, give, id, meet, pair, receipt};
use super::*;
use crate::keyring::keeper::{Activation, Proof};
use crate::keyring::ring::{RetireTo, Ring};
use crate::keyring::{KeeperError, Resume};

fn is_stale(taken: &Result<(), KeeperError>) -> bool {
    matches!(taken, Err(KeeperError::Stale(_)))
}

fn turn(running: &Running, receipts: Vec<Vec<u8>>) -> Result<(), KeeperError> {
    let activation = Activation { receipts, ..Activation::default() };
    running.ask(|keeper| keeper.activate(activation.clone())).map(drop)
}

#[test]
fn two_nodes_that_took_each_others_kek_meet_again_under_the_next_one() {
    let mut node = Node::new();
    let (running, own) = pair(&mut node);
    let old = running.kek("active");
    node.ledger.encrypt(&running);
    // Each has made its bundle before it took the other one's.
    accept(&running, &bundle_of_member(&own, Ring::new(entry(id(9)), 1), node.clock)).unwrap();
    assert_eq!(running.kek("active"), id(9));
    let member = Ring::new(entry(id(9)), 1).adopt(&Ring::new(entry(old), 1), 2).unwrap();
    let nothing_new = accept(&running, &bundle_of_member(&own, member.clone(), node.clock));
    assert!(is_stale(&nothing_new), "{nothing_new:?}");
    let rotated = member.with_pending(entry(id(4))).unwrap();
    for _ in 0..2 {
        accept(&running, &bundle_of_member(&own, rotated.clone(), node.clock)).unwrap();
        assert_eq!((running.kek("active"), running.kek("pre-activation")), (id(9), id(4)));
    }
    node.ledger.encrypt(&running);
    turn(&running, Vec::new()).unwrap();
    let turned = rotated.activate(&id(4), 3).unwrap();
    accept(&running, &bundle_of_member(&own, turned, node.clock)).unwrap();
    assert_eq!(running.kek("active"), id(4));
    node.ledger.assert_holds(&running);
}

#[test]
fn a_bundle_from_before_the_last_rotation_brings_no_kek_back() {
    let mut node = Node::new();
    let (running, own) = pair(&mut node);
    let old = running.kek("active");
    let next = Ring::new(entry(old), 1).with_pending(entry(id(4))).unwrap().activate(&id(4), 2).unwrap();
    accept(&running, &bundle_of_member(&own, next, node.clock)).unwrap();
    let late = Ring::new(entry(old), 1).with_pending(entry(id(3))).unwrap();
    let taken = accept(&running, &bundle_of_member(&own, late, node.clock));
    assert!(is_stale(&taken), "{taken:?}");
    assert!(running.table().keys.iter().all(|row| row.state != "pre-activation"));
}

#[test]
fn a_pending_kek_that_the_others_have_left_is_not_turned_to_and_holds_no_rotation_up() {
    let mut node = Node::new();
    let (running, own) = pair(&mut node);
    let (old, next) = (running.kek("active"), pending(&running));
    give(&running);
    // This node was away while the others turned to it, and to the one after it.
    let theirs = Ring::new(entry(old), 1).with_pending(entry(next)).unwrap().activate(&next, 2).unwrap();
    let theirs = theirs.with_pending(entry(id(4))).unwrap().activate(&id(4), 3).unwrap();
    accept(&running, &bundle_of_member(&own, theirs, node.clock)).unwrap();
    let turned = turn(&running, vec![receipt(&running, &next, 77)]);
    assert!(matches!(turned, Err(KeeperError::NothingPending { .. })), "{turned:?}");
    assert_eq!(running.kek("active"), id(4));
    assert_ne!(pending(&running), next);
    node.ledger.encrypt(&running);
    node.ledger.assert_holds(&running);
}

#[test]
fn a_kek_that_two_nodes_have_given_up_is_still_one_that_the_third_may_turn_to() {
    let mut node = Node::new();
    let (running, own) = pair(&mut node);
    let theirs = Ring::new(entry(running.kek("active")), 1).with_pending(entry(id(4))).unwrap();
    accept(&running, &bundle_of_member(&own, theirs.clone(), node.clock)).unwrap();
    let given_up = bundle_of_member(&own, theirs.giving_up_pending(2), node.clock);
    accept(&running, &given_up).unwrap();
    assert_eq!(running.kek("pre-activation"), id(4), "here it is not");
    running.handle.retire(id(4), RetireTo::GivenUp, Proof::Waived).unwrap();
    accept(&running, &given_up).unwrap();
    let destroyed = running.handle.retire(id(4), RetireTo::Destroyed, Proof::Waived);
    assert!(matches!(destroyed, Err(KeeperError::PendingElsewhere(_))), "{destroyed:?}");
    let third = theirs.activate(&id(4), 3).unwrap();
    accept(&running, &bundle_of_member(&own, third, node.clock)).unwrap();
    assert_eq!(running.kek("active"), id(4));
}

#[test]
fn a_recovered_node_that_takes_a_members_bundle_still_asks_for_the_others() {
    let mut node = Node::new();
    operations::insure(&mut node);
    let (running, _) = pair(&mut node);
    let file = node.file.to_vec();
    drop(running);
    node.open_once().unwrap();
    node.keep_recovery_file();
    node.damage_both("node/root.seal");
    node.recover_to(Resume::ActiveKek).unwrap();
    let running = boot(&mut node);
    let own = meet(&running, &file);
    let active = running.kek("active");
    accept(&running, &bundle_of_member(&own, Ring::new(entry(active), 1), node.clock)).unwrap();
    let next = pending(&running);
    give(&running);
    let turned = turn(&running, vec![receipt(&running, &next, 77)]);
    let Err(KeeperError::NotAllWereGiven { lacking, .. }) = turned else { panic!("{turned:?}: others are forgotten") };
    running.ask(|keeper| keeper.remove_member(lacking.clone())).unwrap();
    turn(&running, vec![receipt(&running, &next, 77)]).unwrap();
}
