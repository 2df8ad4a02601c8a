//! Whom a node counts among those that have its keys, and what it does with a KEK that they may turn to.

use std::sync::atomic::Ordering;

use super::operations::{MEMBER, bundle_of_member};
use super::others::{add, entry, id, identity, receipt, request, with};
use super::*;
use crate::keyring::KeeperError;
use crate::keyring::bundle::fingerprint;
use crate::keyring::crash::device::Trouble;
use crate::keyring::keeper::Proof;
use crate::keyring::member::Identity;
use crate::keyring::ring::{RetireTo, Ring};

#[test]
fn a_member_that_is_added_again_still_owes_its_receipt() {
    let mut node = Node::new();
    operations::know_a_member(&mut node);
    let file = node.file.to_vec();
    let running = boot(&mut node);
    running.ask(|keeper| keeper.bundle_for(MEMBER.parse().unwrap())).unwrap();
    add(&running, &file);
    assert!(running.ask(KeeperHandle::members).unwrap()[0].owes_receipt);
    let refused = running.ask(|keeper| keeper.activate(with(&[])));
    assert!(matches!(&refused, Err(KeeperError::NoReceipt(names)) if names == MEMBER), "{refused:?}");
}

#[test]
fn a_rotation_that_is_due_and_waits_for_the_device_leaves_a_kek_that_was_shared_meanwhile() {
    let mut node = Node::new();
    operations::be_asked(&mut node);
    let file = node.file.clone();
    let running = boot(&mut node);
    let old = running.kek("active");
    node.device.plan(Some((0, Trouble::Late)));
    running.clock.fetch_add(365 * DAY, Ordering::SeqCst);
    drop(running.handle.list());
    node.device.wait_until_held();
    operations::make_bundle(&file, &running).unwrap();
    node.device.release();
    // Asks the device, after the answer to the rotation was taken in.
    running.ask(|keeper| keeper.bundle_request("cp-1".into())).unwrap();
    assert_eq!(running.kek("active"), old, "the other node has this one alone");
    node.ledger.encrypt(&running);
}

#[test]
fn one_node_under_two_names_does_not_fill_the_place_of_another() {
    let mut node = Node::new();
    operations::be_asked(&mut node);
    let file = node.file.clone();
    let running = boot(&mut node);
    operations::make_bundle(&request(&file, "host-2", 2), &running).unwrap();
    operations::make_bundle(&request(&file, "host-3", 3), &running).unwrap();
    let next = pending(&running);
    operations::make_bundle(&request(&file, "host-2", 2), &running).unwrap();
    operations::make_bundle(&request(&file, "cp-2", 2), &running).unwrap();
    let refused = running.activate(next, false);
    assert!(
        matches!(&refused, Err(KeeperError::NotAllWereGiven { lacking, .. }) if lacking == "host-3"),
        "{refused:?}"
    );
    operations::make_bundle(&request(&file, "cp-3", 3), &running).unwrap();
    running.activate(next, false).unwrap();
}

#[test]
fn a_node_that_joined_by_a_request_and_is_a_member_under_another_name_is_one_node() {
    let mut node = Node::new();
    operations::be_asked(&mut node);
    let file = node.file.clone();
    let running = boot(&mut node);
    operations::make_bundle(&request(&file, "localhost", 2), &running).unwrap();
    add(&running, &identity("cp-2", 2));
    let next = pending(&running);
    running.ask(|keeper| keeper.bundle_for("cp-2".parse().unwrap())).unwrap();
    let receipts = [receipt(&running, &next, 2)];
    running.ask(|keeper| keeper.activate(with(&receipts))).unwrap();
    assert_eq!(running.kek("active"), next);
}

#[test]
fn two_nodes_of_one_name_are_both_given_the_next_kek() {
    let mut node = Node::new();
    operations::be_asked(&mut node);
    let file = node.file.clone();
    let running = boot(&mut node);
    for byte in [2, 3] {
        operations::make_bundle(&request(&file, "localhost", byte), &running).unwrap();
    }
    let next = pending(&running);
    operations::make_bundle(&request(&file, "localhost", 2), &running).unwrap();
    let Err(KeeperError::NotAllWereGiven { lacking, .. }) = running.activate(next, false) else {
        panic!("the other one is forgotten");
    };
    let refused = running.ask(|keeper| keeper.remove_member("localhost".to_owned()));
    assert!(matches!(&refused, Err(KeeperError::SeveralNodes(nodes)) if nodes.contains(&lacking)), "{refused:?}");
    // It is no more: its TPM was replaced, say.
    running.ask(|keeper| keeper.remove_member(lacking.clone())).unwrap();
    running.activate(next, false).unwrap();
}

#[test]
fn a_member_that_is_removed_is_counted_no_more() {
    let mut node = Node::new();
    operations::know_a_member(&mut node);
    let running = boot(&mut node);
    add(&running, &identity("cp-3", 3));
    for name in [MEMBER, "cp-3"] {
        running.ask(|keeper| keeper.bundle_for(name.parse().unwrap())).unwrap();
    }
    let both = |id: &KekId| [receipt(&running, id, 77), receipt(&running, id, 3)];
    let first = running.kek("pre-activation");
    running.ask(|keeper| keeper.activate(with(&both(&first)))).unwrap();
    // Both have the active KEK now, and one of them is no more.
    let next = pending(&running);
    running.ask(|keeper| keeper.bundle_for(MEMBER.parse().unwrap())).unwrap();
    running.ask(|keeper| keeper.remove_member("cp-3".to_owned())).unwrap();
    let receipts = [receipt(&running, &next, 77)];
    running.ask(|keeper| keeper.activate(with(&receipts))).unwrap();
    assert_eq!(running.kek("active"), next);
}

#[test]
fn a_member_whose_tpm_was_replaced_is_one_node() {
    let mut node = Node::new();
    operations::know_a_member(&mut node);
    let running = boot(&mut node);
    running.ask(|keeper| keeper.bundle_for(MEMBER.parse().unwrap())).unwrap();
    let first = running.kek("pre-activation");
    let receipts = [receipt(&running, &first, 77)];
    running.ask(|keeper| keeper.activate(with(&receipts))).unwrap();
    let file = identity(MEMBER, 4);
    let refused = running.ask(|keeper| keeper.add_member(file.clone(), fingerprint(&file)));
    assert!(
        matches!(&refused, Err(KeeperError::OtherTpm(name)) if name == MEMBER),
        "it may be another node: {refused:?}"
    );
    running.ask(|keeper| keeper.replace_member(file.clone(), fingerprint(&file))).unwrap();
    let next = pending(&running);
    running.ask(|keeper| keeper.bundle_for(MEMBER.parse().unwrap())).unwrap();
    let receipts = [receipt(&running, &next, 4)];
    running.ask(|keeper| keeper.activate(with(&receipts))).unwrap();
    assert_eq!(running.kek("active"), next);
}

#[test]
fn insisting_passes_over_no_member_that_is_known() {
    let mut node = Node::new();
    operations::know_a_member(&mut node);
    let running = boot(&mut node);
    running.ask(|keeper| keeper.bundle_for(MEMBER.parse().unwrap())).unwrap();
    let next = running.kek("pre-activation");
    assert!(matches!(running.activate(next, true), Err(KeeperError::NoReceipt(names)) if names == MEMBER));
    running.ask(|keeper| keeper.remove_member(MEMBER.to_owned())).unwrap();
    running.activate(next, true).unwrap();
}

/// This node and the member share a KEK, and it is this one's identity.
fn shared_with_a_member(node: &mut Node) -> (Running, Vec<u8>) {
    operations::know_a_member(node);
    let running = boot(node);
    running.ask(|keeper| keeper.bundle_for(MEMBER.parse().unwrap())).unwrap();
    let own = running.ask(|keeper| keeper.identity("cp-1".parse().unwrap())).unwrap();
    assert_eq!(Identity::decode(&own).unwrap().name.as_str(), "cp-1");
    (running, own)
}

#[test]
fn a_pending_kek_that_another_node_has_is_given_up_and_never_destroyed() {
    let mut node = Node::new();
    let (running, own) = shared_with_a_member(&mut node);
    let (old, next) = (running.kek("active"), running.kek("pre-activation"));
    let refused = running.handle.retire(next, RetireTo::Destroyed, Proof::Waived);
    assert!(matches!(refused, Err(KeeperError::PendingElsewhere(id)) if id == next), "{refused:?}");
    assert!(
        matches!(running.handle.retire(old, RetireTo::GivenUp, Proof::Waived), Err(KeeperError::Move(_))),
        "it is active"
    );
    running.handle.retire(next, RetireTo::GivenUp, Proof::Waived).unwrap();
    running.handle.retire(next, RetireTo::GivenUp, Proof::Waived).unwrap();
    assert_eq!(running.row("pre-activation"), None);
    // The other node turns to it all the same.
    let theirs = Ring::new(entry(old), 1).with_pending(entry(next)).unwrap().activate(&next, 2).unwrap();
    let bundle = bundle_of_member(&own, theirs, node.clock);
    running.ask(|keeper| keeper.bundle_accept(bundle.clone(), None)).unwrap();
    assert_eq!(running.kek("active"), next);
    node.ledger.assert_holds(&running);
}

#[test]
fn what_was_accepted_and_turned_to_is_accepted_again_and_changes_nothing() {
    let mut node = Node::new();
    let (running, own) = shared_with_a_member(&mut node);
    let theirs = Ring::new(entry(id(3)), 1).with_pending(entry(id(4))).unwrap();
    let bundle = bundle_of_member(&own, theirs, node.clock);
    let accept = || running.ask(|keeper| keeper.bundle_accept(bundle.clone(), None));
    accept().unwrap();
    let receipt = running.ask(KeeperHandle::receipt).unwrap();
    // Its own rotation crossed with that one, and was given up.
    assert_eq!(running.kek("pre-activation"), id(4));
    running.activate(id(4), false).unwrap();
    let before = running.table();
    assert_eq!(accept().unwrap(), before);
    assert_eq!(running.ask(KeeperHandle::receipt).unwrap(), receipt);
}
