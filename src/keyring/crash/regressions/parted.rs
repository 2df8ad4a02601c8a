//! Nodes that share keys and have lost sight of each other: recovered, on an old copy of the disk, cut, with rotations that cross and
//! names that repeat.

use super::operations::{MEMBER, bundle_of_member};
use super::others::{accept, add, entry, give, id, identity, pair, receipt, request, with};
use super::*;
use crate::keyring::bundle::fingerprint;
use crate::keyring::keeper::{Activation, Proof};
use crate::keyring::ring::{RetireTo, Ring};
use crate::keyring::{KeeperError, Resume};

#[test]
fn a_node_whose_old_copy_was_accepted_takes_the_bundle_of_the_newest_keys() {
    let mut node = Node::new();
    let (running, own) = pair(&mut node);
    let old_kek = running.kek("active");
    let theirs = Ring::new(entry(old_kek), 1).with_pending(entry(id(4))).unwrap();
    accept(&running, &bundle_of_member(&own, theirs.clone(), node.clock)).unwrap();
    node.ledger.encrypt(&running);
    drop(running);
    node.open_once().unwrap();
    let old = node.disk.copy();
    let running = boot(&mut node);
    running.activate(id(4), false).unwrap();
    node.ledger.encrypt(&running);
    drop(running);
    node.open_once().unwrap();
    node.disk = old;
    assert!(node.start().first_attempt().is_err(), "it is an old copy");
    node.accept_rollback().unwrap();
    let running = boot(&mut node);
    assert_eq!(running.kek("active"), old_kek);
    let turned = theirs.activate(&id(4), 2).unwrap();
    accept(&running, &bundle_of_member(&own, turned, node.clock)).unwrap();
    assert_eq!(running.kek("active"), id(4));
    node.ledger.assert_holds(&running);
}

#[test]
fn removing_a_member_forgets_no_other_node_of_its_name() {
    let mut node = Node::new();
    operations::be_asked(&mut node);
    let file = node.file.clone();
    let running = boot(&mut node);
    operations::make_bundle(&request(&file, "localhost", 3), &running).unwrap();
    operations::make_bundle(&request(&file, "cp-5", 5), &running).unwrap();
    add(&running, &identity("localhost", 4));
    let removed = running.ask(|keeper| keeper.remove_member("localhost".to_owned()));
    let next = pending(&running);
    operations::make_bundle(&request(&file, "cp-5", 5), &running).unwrap();
    let turned = running.activate(next, false);
    assert!(turned.is_err(), "the node of the request was never given it; removal: {removed:?}");
}

#[test]
fn a_member_that_is_removed_by_its_full_label_is_no_member_any_more() {
    let mut node = Node::new();
    operations::be_asked(&mut node);
    let file = node.file.clone();
    let running = boot(&mut node);
    operations::make_bundle(&request(&file, "localhost", 3), &running).unwrap();
    add(&running, &identity("localhost", 4));
    running.ask(|keeper| keeper.bundle_for("localhost".parse().unwrap())).unwrap();
    let next = pending(&running);
    operations::make_bundle(&request(&file, "localhost", 3), &running).unwrap();
    let Err(KeeperError::NotAllWereGiven { lacking, .. }) = running.activate(next, false) else { panic!() };
    assert!(lacking.starts_with("localhost@"), "{lacking}");
    // It is the member's.
    let rows = running.ask(|keeper| keeper.remove_member(lacking.clone())).unwrap();
    let turned = running.activate(next, false);
    assert!(turned.is_ok(), "{rows:?} {turned:?}");
}

#[test]
fn receipts_of_one_kek_turn_to_no_other() {
    let mut node = Node::new();
    let (running, own) = pair(&mut node);
    add(&running, &identity("cp-3", 3));
    let (old, next) = (running.kek("active"), pending(&running));
    for name in [MEMBER, "cp-3"] {
        running.ask(|keeper| keeper.bundle_for(name.parse().unwrap())).unwrap();
    }
    let receipts = [receipt(&running, &next, 77), receipt(&running, &next, 3)];
    // Another operator has begun a rotation on the member, and not reached cp-3 yet.
    let crossed = Ring::new(entry(old), 1).with_pending(entry(id(4))).unwrap();
    accept(&running, &bundle_of_member(&own, crossed, node.clock)).unwrap();
    let turned = running.ask(|keeper| keeper.activate(with(&receipts)));
    assert!(turned.is_err(), "cp-3 has shown that it has {next}, and this node turned to {}", running.kek("active"));
}

#[test]
fn a_recovered_node_does_not_turn_to_a_kek_that_no_other_node_has() {
    let mut node = Node::new();
    operations::be_asked(&mut node);
    let file = node.file.clone();
    let mut next = None;
    node.live(|running| {
        operations::make_bundle(&file, running).unwrap();
        next = Some(pending(running));
        assert!(running.activate(next.unwrap(), false).is_err());
    });
    node.keep_recovery_file();
    node.damage_both("node/root.seal");
    node.recover_to(Resume::ActiveKek).unwrap();
    let running = boot(&mut node);
    let turned = running.ask(|keeper| keeper.activate(with(&[])));
    assert!(turned.is_err(), "no other node has it");
}

#[test]
fn a_recovered_node_turns_once_all_others_were_given_the_next_kek() {
    let mut node = Node::new();
    operations::be_asked(&mut node);
    let file = node.file.clone();
    let give = |running: &Running, byte| operations::make_bundle(&request(&file, &format!("cp-{byte}"), byte), running);
    node.live(|running| [2, 3].into_iter().for_each(|byte| drop(give(running, byte).unwrap())));
    node.keep_recovery_file();
    node.damage_both("node/root.seal");
    node.recover_to(Resume::ActiveKek).unwrap();
    let running = boot(&mut node);
    let next = pending(&running);
    give(&running, 2).unwrap();
    let Err(KeeperError::NotAllWereGiven { lacking, .. }) = running.activate(next, false) else {
        panic!("the other one is forgotten");
    };
    give(&running, 3).unwrap();
    // These are all, says the operator.
    running.ask(|keeper| keeper.remove_member(lacking.clone())).unwrap();
    running.activate(next, false).unwrap();
}

#[test]
fn a_node_that_took_its_keys_by_a_request_rotates_once_it_gave_the_next_kek_back() {
    let mut node = Node::new();
    let mut asked = Node::new();
    operations::be_asked(&mut asked);
    let theirs = asked.file.clone();
    operations::be_given(&mut node);
    let file = node.file.clone();
    let running = boot(&mut node);
    operations::accept_file(&file, &running).unwrap();
    let next = pending(&running);
    operations::make_bundle(&theirs, &running).unwrap();
    running.activate(next, false).unwrap();
}

#[test]
fn a_compromised_kek_that_comes_back_is_compromised() {
    let mut node = Node::new();
    operations::insure(&mut node);
    operations::grow(&mut node);
    let mut bad = None;
    node.live(|running| {
        bad = Some(running.kek("active"));
        running.renew().unwrap();
        running.handle.retire(bad.unwrap(), RetireTo::Compromised, Proof::Waived).unwrap();
    });
    node.keep_recovery_file();
    let mut fresh = Node::new();
    fresh.init().unwrap();
    let running = boot(&mut fresh);
    let export = || crate::keyring::export::Export::decode(&node.export).unwrap().0;
    running.ask(|keeper| keeper.restore(export())).unwrap();
    let row = running.table().keys.into_iter().find(|row| row.id == bad.unwrap().to_string()).unwrap();
    assert_eq!(row.state, "compromised");
}

#[test]
fn whoever_gave_the_keys_and_is_gone_for_good_can_be_removed() {
    let mut node = Node::new();
    let mut asked = Node::new();
    operations::be_asked(&mut asked);
    let theirs = asked.file.clone();
    operations::be_given(&mut node);
    let file = node.file.clone();
    let running = boot(&mut node);
    operations::accept_file(&file, &running).unwrap();
    // A third node was given the keys by this one.
    operations::make_bundle(&request(&theirs, "cp-3", 3), &running).unwrap();
    let next = pending(&running);
    operations::make_bundle(&request(&theirs, "cp-3", 3), &running).unwrap();
    let Err(KeeperError::NotAllWereGiven { lacking, .. }) = running.activate(next, false) else { return };
    running.ask(|keeper| keeper.remove_member(lacking.clone())).unwrap();
    running.activate(next, false).unwrap();
}

#[test]
fn a_kek_that_was_given_up_and_comes_back_still_waits_for_all_receipts() {
    let mut node = Node::new();
    let (running, own) = pair(&mut node);
    add(&running, &identity("cp-3", 3));
    let (old, next) = (running.kek("active"), pending(&running));
    give(&running);
    running.handle.retire(next, RetireTo::GivenUp, Proof::Waived).unwrap();
    let theirs = Ring::new(entry(old), 1).with_pending(entry(next)).unwrap();
    accept(&running, &bundle_of_member(&own, theirs, node.clock)).unwrap();
    assert_eq!(running.kek("pre-activation"), next);
    let receipts = [receipt(&running, &next, 77)];
    let turned = running.ask(|keeper| keeper.activate(with(&receipts)));
    assert!(turned.is_err(), "cp-3 never had it");
}

#[test]
fn two_nodes_of_one_name_are_told_apart_by_a_bundle_request_and_a_member() {
    let mut node = Node::new();
    operations::be_asked(&mut node);
    let file = node.file.clone();
    let running = boot(&mut node);
    operations::make_bundle(&request(&file, "localhost", 3), &running).unwrap();
    add(&running, &identity("localhost", 4));
    running.ask(|keeper| keeper.bundle_for("localhost".parse().unwrap())).unwrap();
    let next = pending(&running);
    running.ask(|keeper| keeper.bundle_for("localhost".parse().unwrap())).unwrap();
    let receipts = [receipt(&running, &next, 4)];
    let refused = running.ask(|keeper| keeper.activate(with(&receipts)));
    let Err(KeeperError::NotAllWereGiven { lacking, .. }) = refused else { panic!("{refused:?}") };
    // The request's is gone for good.
    running.ask(|keeper| keeper.remove_member(lacking.clone())).unwrap();
    assert_eq!(running.ask(KeeperHandle::members).unwrap().len(), 1);
    running.ask(|keeper| keeper.activate(with(&receipts))).unwrap();
}

#[test]
fn a_member_that_was_removed_in_the_middle_of_a_cut_is_removed_by_the_same_command() {
    let mut node = Node::new();
    operations::be_asked(&mut node);
    let file = node.file.clone();
    node.live(|running| {
        operations::make_bundle(&request(&file, "localhost", 4), running).unwrap();
        add(running, &identity("cp-4", 4));
    });
    let steps = steps(&node, |_, running| {
        running.ask(|keeper| keeper.remove_member("cp-4".to_owned())).unwrap();
    });
    let mut wrong = Vec::new();
    for (at, step) in steps.iter().enumerate().filter(|(_, step)| Fault::KillAfter.fits(**step)) {
        let mut node = node.on(node.disk.copy());
        let running = node.start();
        running.first_attempt().unwrap();
        node.disk.plan(Some((at, Fault::KillAfter)));
        drop(running.ask(|keeper| keeper.remove_member("cp-4".to_owned())));
        node.disk = node.disk.after_kill();
        drop(running);
        let running = boot(&mut node);
        let again = running.ask(|keeper| keeper.remove_member("cp-4".to_owned())).map(drop);
        let next = pending(&running);
        operations::make_bundle(&request(&file, "cp-5", 5), &running).unwrap();
        if let Err(error) = running.activate(next, false) {
            wrong.push(format!("step {at}, {step:?}: again {again:?}; {error:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), steps.len(), wrong.join("\n"));
}

#[test]
fn a_member_whose_replacement_was_cut_is_one_node_after_the_same_command() {
    let mut node = Node::new();
    operations::be_asked(&mut node);
    node.live(|running| {
        add(running, &identity("cp-4", 4));
        running.ask(|keeper| keeper.bundle_for("cp-4".parse().unwrap())).unwrap();
    });
    let replaced = identity("cp-4", 6);
    let replace = |running: &Running| {
        running.ask(|keeper| keeper.replace_member(replaced.clone(), fingerprint(&replaced))).unwrap();
    };
    let steps = steps(&node, |_, running| replace(running));
    let mut wrong = Vec::new();
    for (at, step) in steps.iter().enumerate().filter(|(_, step)| Fault::KillAfter.fits(**step)) {
        let mut node = node.on(node.disk.copy());
        let running = node.start();
        running.first_attempt().unwrap();
        node.disk.plan(Some((at, Fault::KillAfter)));
        drop(running.ask(|keeper| keeper.replace_member(replaced.clone(), fingerprint(&replaced))));
        node.disk = node.disk.after_kill();
        drop(running);
        let running = boot(&mut node);
        replace(&running);
        let next = pending(&running);
        running.ask(|keeper| keeper.bundle_for("cp-4".parse().unwrap())).unwrap();
        let receipts = [receipt(&running, &next, 6)];
        if let Err(error) = running.ask(|keeper| keeper.activate(with(&receipts))) {
            wrong.push(format!("step {at}, {step:?}: {error:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), steps.len(), wrong.join("\n"));
}

#[test]
fn a_damaged_member_is_removed_and_takes_no_node_of_its_name_with_it() {
    let mut node = Node::new();
    operations::be_asked(&mut node);
    let file = node.file.clone();
    node.live(|running| {
        operations::make_bundle(&request(&file, "localhost", 3), running).unwrap();
        operations::make_bundle(&request(&file, "cp-5", 5), running).unwrap();
        add(running, &identity("localhost", 4));
    });
    node.damage_both("members/localhost.member");
    let running = boot(&mut node);
    let remove = || running.ask(|keeper| keeper.remove_member("localhost".to_owned()));
    assert_eq!(remove().unwrap(), []);
    let next = pending(&running);
    operations::make_bundle(&request(&file, "cp-5", 5), &running).unwrap();
    let refused = running.activate(next, false);
    assert!(
        matches!(&refused, Err(KeeperError::NotAllWereGiven { lacking, .. }) if lacking == "localhost"),
        "{refused:?}"
    );
    assert_eq!(remove().unwrap(), []);
    running.activate(next, false).unwrap();
}

#[test]
fn a_kek_that_was_given_up_and_that_others_may_turn_to_is_not_destroyed() {
    let mut node = Node::new();
    let (running, own) = pair(&mut node);
    let (old, next) = (running.kek("active"), pending(&running));
    give(&running);
    running.handle.retire(next, RetireTo::GivenUp, Proof::Waived).unwrap();
    let destroyed = running.handle.retire(next, RetireTo::Destroyed, Proof::Waived);
    let disk = node.on(node.disk.after_kill());
    let theirs = Ring::new(entry(old), 1).with_pending(entry(next)).unwrap().activate(&next, 2).unwrap();
    let taken = accept(&running, &bundle_of_member(&own, theirs, node.clock));
    assert!(destroyed.is_err() && taken.is_ok(), "{taken:?}");
    // The operator says that nobody can any more.
    let mut node = disk;
    let running = boot(&mut node);
    running.handle.retire(next, RetireTo::GoneEverywhere, Proof::Waived).unwrap();
}

#[test]
fn a_kek_whose_rotation_crossed_with_another_is_not_destroyed_as_an_old_one() {
    let mut node = Node::new();
    let (running, own) = pair(&mut node);
    let (old, next) = (running.kek("active"), pending(&running));
    give(&running);
    let crossed = Ring::new(entry(old), 1).with_pending(entry(id(4))).unwrap();
    accept(&running, &bundle_of_member(&own, crossed, node.clock)).unwrap();
    let row = running.table().keys.into_iter().find(|row| row.id == next.to_string()).unwrap();
    assert!(row.may_return, "{row:?}");
    let destroyed = running.handle.retire(next, RetireTo::Destroyed, Proof::Waived);
    // The member has taken the bundle, and turns to what was in it.
    let theirs = Ring::new(entry(old), 1).with_pending(entry(next)).unwrap().activate(&next, 2).unwrap();
    let taken = accept(&running, &bundle_of_member(&own, theirs, node.clock));
    assert!(destroyed.is_err() || taken.is_ok(), "{taken:?}");
}

#[test]
fn a_pending_kek_that_is_called_compromised_is_followed_if_others_turn_to_it() {
    let mut node = Node::new();
    let (running, own) = pair(&mut node);
    let (old, next) = (running.kek("active"), pending(&running));
    give(&running);
    let marked = running.handle.retire(next, RetireTo::Compromised, Proof::Waived);
    let theirs = Ring::new(entry(old), 1).with_pending(entry(next)).unwrap().activate(&next, 2).unwrap();
    let taken = accept(&running, &bundle_of_member(&own, theirs, node.clock));
    assert!(marked.is_err() || taken.is_ok(), "{taken:?}");
}

#[test]
fn a_kek_of_another_operators_rotation_is_not_turned_to_before_all_members_have_it() {
    let mut node = Node::new();
    let (running, own) = pair(&mut node);
    add(&running, &identity("cp-3", 3));
    let (old, next) = (running.kek("active"), pending(&running));
    for name in [MEMBER, "cp-3"] {
        running.ask(|keeper| keeper.bundle_for(name.parse().unwrap())).unwrap();
    }
    assert_ne!(next, id(4));
    let crossed = Ring::new(entry(old), 1).with_pending(entry(id(4))).unwrap();
    accept(&running, &bundle_of_member(&own, crossed, node.clock)).unwrap();
    // `--when-all-have` of a folder in which no receipt has come yet.
    let all = || Activation { when_all_have: true, ..Activation::default() };
    let turned = running.ask(|keeper| keeper.activate(all()));
    assert!(turned.is_err(), "cp-3 never had it");
}
