//! Nodes that know each other.

use std::sync::atomic::Ordering;

use super::operations::{MEMBER, member_keys};
use super::others::{receipt, with};
use super::*;
use crate::keyring::KeeperError;
use crate::keyring::attached::Check;
use crate::keyring::bundle::BundleError;
use crate::keyring::evidence::{KekUse, Reach, Scan};
use crate::keyring::keeper::Proof;
use crate::keyring::member::Receipt;
use crate::keyring::ring::{AdoptError, RetireTo};

#[test]
fn a_kek_that_was_given_to_a_member_becomes_active_with_its_receipt_alone() {
    let mut node = Node::new();
    operations::know_a_member(&mut node);
    let running = boot(&mut node);
    let (old, next) = (running.kek("active"), running.kek("pre-activation"));
    let member = || MEMBER.parse().unwrap();
    running.ask(|keeper| keeper.bundle_for(member())).unwrap();
    assert!(running.ask(KeeperHandle::members).unwrap()[0].owes_receipt);
    let stranger = Receipt::sign(&"c1".parse().unwrap(), &next, Check::of(&next, &[1; 32]), &member_keys(77));
    let wrong = [vec![], vec![receipt(&running, &old, 77)], vec![stranger]];
    for receipts in wrong {
        let refused = running.ask(|keeper| keeper.activate(with(&receipts)));
        assert!(matches!(refused, Err(KeeperError::NoReceipt(names)) if names == MEMBER));
        assert_eq!(running.kek("active"), old);
    }
    // Also after a restart: what was given is on disk.
    drop(running);
    let running = boot(&mut node);
    assert!(running.ask(|keeper| keeper.activate(with(&[]))).is_err());
    let good = receipt(&running, &next, 77);
    running.ask(|keeper| keeper.activate(with(std::slice::from_ref(&good)))).unwrap();
    assert_eq!(running.kek("active"), next);
    assert!(!running.ask(KeeperHandle::members).unwrap()[0].owes_receipt);
    // Once more, since the answer may have been lost; and not with receipts of another KEK.
    running.ask(|keeper| keeper.activate(with(std::slice::from_ref(&good)))).unwrap();
    let of_old = receipt(&running, &old, 77);
    assert!(running.ask(|keeper| keeper.activate(with(std::slice::from_ref(&of_old)))).is_err());
}

#[test]
fn a_member_whose_bundle_was_never_made_is_not_forgotten() {
    let mut node = Node::new();
    operations::know_a_member(&mut node);
    let parent = crate::keyring::member::Identity::decode(&node.file).unwrap().parent;
    let running = boot(&mut node);
    let (old, next) = (running.kek("active"), running.kek("pre-activation"));
    let other = member_keys(78).identity(&"c1".parse().unwrap(), "cp-8".parse().unwrap(), parent).unwrap();
    let mark = crate::keyring::bundle::fingerprint(&other);
    running.ask(|keeper| keeper.add_member(other.clone(), mark.clone())).unwrap();
    // Cut after the first of two.
    running.ask(|keeper| keeper.bundle_for(MEMBER.parse().unwrap())).unwrap();
    let good = receipt(&running, &next, 77);
    let refused = running.ask(|keeper| keeper.activate(with(std::slice::from_ref(&good))));
    assert!(matches!(&refused, Err(KeeperError::NoReceipt(names)) if names == "cp-8"), "{refused:?}");
    assert_eq!(running.kek("active"), old);
}

#[test]
fn a_member_that_is_gone_for_good_holds_nothing_up() {
    let mut node = Node::new();
    operations::know_a_member(&mut node);
    let running = boot(&mut node);
    let next = running.kek("pre-activation");
    running.ask(|keeper| keeper.bundle_for(MEMBER.parse().unwrap())).unwrap();
    running.ask(|keeper| keeper.remove_member(MEMBER.to_owned())).unwrap();
    running.ask(|keeper| keeper.activate(with(&[]))).unwrap();
    assert_eq!(running.kek("active"), next);
    let refused = running.ask(|keeper| keeper.bundle_for(MEMBER.parse().unwrap()));
    assert!(matches!(refused, Err(KeeperError::UnknownMember(_))));
}

#[test]
fn members_are_known_under_another_node_root_and_this_node_is_another_one_for_them() {
    let mut node = Node::new();
    operations::know_a_member(&mut node);
    let running = boot(&mut node);
    let own = running.ask(|keeper| keeper.identity("cp-1".parse().unwrap())).unwrap();
    let before = running.ask(KeeperHandle::members).unwrap();
    running.ask(|keeper| keeper.bundle_for(MEMBER.parse().unwrap())).unwrap();
    operations::renew_root(&node, &running).unwrap();
    assert_ne!(running.ask(|keeper| keeper.identity("cp-1".parse().unwrap())).unwrap(), own);
    drop(running);
    let running = boot_and_read(&mut node);
    let after = running.ask(KeeperHandle::members).unwrap();
    assert_eq!((&after[0].name, &after[0].fingerprint), (&before[0].name, &before[0].fingerprint));
    assert!(after[0].owes_receipt, "what was given stays given");
    running.ask(|keeper| keeper.bundle_for(MEMBER.parse().unwrap())).unwrap();
}

#[test]
fn an_old_bundle_of_a_member_takes_nothing_back() {
    let mut node = Node::new();
    operations::be_given_by_a_member(&mut node);
    let bundle = node.file.to_vec();
    let running = boot(&mut node);
    let accept = |running: &Running| running.ask(|keeper| keeper.bundle_accept(bundle.clone(), None));
    accept(&running).unwrap();
    let theirs = running.kek("active");
    accept(&running).unwrap();
    assert_eq!(running.kek("active"), theirs, "again is as once");
    let next = pending(&running);
    running.ask(|keeper| keeper.bundle_for(MEMBER.parse().unwrap())).unwrap();
    let shown = receipt(&running, &next, 77);
    running.ask(|keeper| keeper.activate(with(std::slice::from_ref(&shown)))).unwrap();
    let stale = accept(&running);
    assert!(matches!(stale, Err(KeeperError::Stale(AdoptError::Stale(id))) if id == theirs));
    let former = KekId::from_bytes([3; 16]);
    let refused = running.ask(|keeper| keeper.retire(former, RetireTo::Destroyed, Proof::Waived));
    assert!(matches!(refused, Err(KeeperError::InUseElsewhere(id)) if id == former));
    running.ask(|keeper| keeper.retire(former, RetireTo::GoneEverywhere, Proof::Waived)).unwrap();
    assert!(accept(&running).is_err());
    assert_eq!(running.kek("active"), next);
    let row = running.table().keys.into_iter().find(|row| row.id == former.to_string()).unwrap();
    assert_eq!(row.state, "destroyed");
}

#[test]
fn a_bundle_of_a_stranger_or_for_another_node_is_refused() {
    let mut node = Node::new();
    operations::be_given_by_a_member(&mut node);
    let bundle = node.file.to_vec();
    let running = boot(&mut node);
    running.ask(|keeper| keeper.remove_member(MEMBER.to_owned())).unwrap();
    let refused = running.ask(|keeper| keeper.bundle_accept(bundle.clone(), None));
    assert!(matches!(refused, Err(KeeperError::Bundle(BundleError::NoMember(_)))));
    drop(running);
    let mut other = Node::new();
    operations::know_a_member(&mut other);
    let running = boot(&mut other);
    let refused = running.ask(|keeper| keeper.bundle_accept(bundle.clone(), None));
    assert!(matches!(refused, Err(KeeperError::Bundle(BundleError::NotForThisNode))));
}

#[test]
fn one_node_is_one_member_and_never_itself() {
    let mut node = Node::new();
    operations::know_a_member(&mut node);
    let file = node.file.to_vec();
    let running = boot(&mut node);
    let own = running.ask(|keeper| keeper.identity("cp-1".parse().unwrap())).unwrap();
    let add =
        |file: &[u8]| running.ask(|keeper| keeper.add_member(file.to_vec(), crate::keyring::bundle::fingerprint(file)));
    assert!(matches!(add(&own), Err(KeeperError::OwnIdentity)));
    let parent = crate::keyring::member::Identity::decode(&file).unwrap().parent;
    let twice = member_keys(77).identity(&"c1".parse().unwrap(), "cp-8".parse().unwrap(), parent.clone()).unwrap();
    assert!(matches!(add(&twice), Err(KeeperError::MemberTwice(name)) if name == MEMBER));
    // Its root was renewed: the new identity takes the place of the old one.
    let renewed = member_keys(78).identity(&"c1".parse().unwrap(), MEMBER.parse().unwrap(), parent.clone()).unwrap();
    assert_eq!(add(&renewed).unwrap().len(), 1);
    let wrong = running.ask(|keeper| keeper.add_member(file.clone(), "00000".to_owned()));
    assert!(matches!(wrong, Err(KeeperError::Bundle(BundleError::Fingerprint))));
    // Sixteen nodes, this one among them.
    for byte in 100..114 {
        let name = format!("cp-{byte}").parse().unwrap();
        add(&member_keys(byte).identity(&"c1".parse().unwrap(), name, parent.clone()).unwrap()).unwrap();
    }
    let more = member_keys(200).identity(&"c1".parse().unwrap(), "cp-200".parse().unwrap(), parent).unwrap();
    assert!(matches!(add(&more), Err(KeeperError::Bundle(BundleError::Sharers))));
}

/// Its command was the last of three, and has not reached that node. What it writes then, this one could never read again.
#[test]
fn a_kek_is_not_destroyed_while_a_member_has_not_shown_that_it_writes_under_another_one() {
    let mut node = Node::new();
    operations::know_a_member(&mut node);
    let running = boot(&mut node);
    let (old, next) = (running.kek("active"), running.kek("pre-activation"));
    running.encrypt().unwrap();
    running.ask(|keeper| keeper.bundle_for(MEMBER.parse().unwrap())).unwrap();
    // The member has the next KEK, and says nothing of having turned to it.
    let shown = receipt(&running, &next, 77);
    running.ask(|keeper| keeper.activate(with(std::slice::from_ref(&shown)))).unwrap();
    let now = running.clock.load(Ordering::SeqCst) + 3600;
    running.clock.store(now, Ordering::SeqCst);
    let keks = vec![KekUse { kek: next.to_string(), objects: 3 }];
    running
        .handle
        .scanned(Scan { at: now, revision: 7, objects: 3, foreign: 0, reach: Reach::Whole, keks, keys: Vec::new() })
        .unwrap();
    let proof = || Proof::Scan { backups_since: Some(now) };
    let retired = running.ask(|keeper| keeper.retire(old, RetireTo::Destroyed, proof()));
    assert!(retired.is_err(), "{:?}", retired.map(drop));
}
