//! Another node root, and what a recovery file brings to a node that opens.

use super::*;
use crate::keyring::KeeperError;
use crate::keyring::export::Export;
use crate::keyring::keeper::Proof;
use crate::keyring::maker::Maker;
use crate::keyring::recovery;
use crate::keyring::ring::RetireTo;
use crate::types::{CredentialName, Secret};

fn maker_of_file(node: &Node) -> Maker {
    recovery::decrypt(node.identity.as_ref().unwrap(), &node.files()[recovery::FILE]).unwrap().1.unwrap()
}

fn export(node: &Node) -> Export {
    Export::decode(&node.export).unwrap().0
}

#[test]
fn the_recovery_file_is_signed_by_the_root_that_counts() {
    let mut node = Node::new();
    operations::insure(&mut node);
    operations::grow(&mut node);
    let before = maker_of_file(&node);
    let running = boot(&mut node);
    operations::renew_root(&node, &running).unwrap();
    let shown = running.handle.overview().unwrap().recovery_maker;
    let after = maker_of_file(&node);
    assert_ne!(before, after);
    assert_eq!(after.fingerprint(), shown);
    drop(running);
    let running = boot_and_read(&mut node);
    assert_eq!(running.handle.overview().unwrap().recovery_maker, maker_of_file(&node).fingerprint());
}

#[test]
fn a_credential_is_known_by_the_same_mark_under_another_root() {
    let mut node = Node::new();
    operations::insure(&mut node);
    operations::grow(&mut node);
    let name: CredentialName = "login".parse().unwrap();
    node.seal_credential(&name, b"one");
    let running = boot(&mut node);
    let opened = || {
        let (content, mark) = running.handle.open_credential(name.clone()).unwrap();
        (content.expose().to_vec(), mark)
    };
    let before = opened();
    operations::renew_root(&node, &running).unwrap();
    assert_eq!(opened(), before, "a login that may be spent would be tried again");
    running.handle.replace_credential(name.clone(), opened().1, Secret::new(b"one".to_vec())).unwrap();
    assert_ne!(opened().1, before.1);
}

#[test]
fn an_open_request_is_answered_under_another_root_too() {
    let mut node = Node::new();
    operations::be_given(&mut node);
    let bundle = node.file.clone();
    let running = boot(&mut node);
    operations::renew_root(&node, &running).unwrap();
    operations::accept_file(&bundle, &running).unwrap();
    assert_eq!(running.kek("active"), KekId::from_bytes([4; 16]));
}

#[test]
fn what_a_node_that_opens_lacks_comes_back_from_its_recovery_file() {
    let mut node = Node::new();
    operations::insure(&mut node);
    operations::grow(&mut node);
    node.keep_recovery_file();
    let running = boot(&mut node);
    let former = running.kek("deactivated");
    drop(running);
    node.damage_both(&format!("keyring/{former}.kek"));
    let running = boot(&mut node);
    let active = running.kek("active");
    assert_eq!(running.handle.restore(export(&node)).unwrap(), [former]);
    assert_eq!(running.handle.restore(export(&node)).unwrap(), [], "nothing is lacking any more");
    node.ledger.assert_holds(&running);
    drop(running);
    let running = boot_and_read(&mut node);
    assert_eq!(running.kek("active"), active);
}

#[test]
fn a_node_that_was_set_up_anew_takes_its_old_keks_back_and_encrypts_under_its_own() {
    let mut node = Node::new();
    operations::insure(&mut node);
    operations::grow(&mut node);
    node.keep_recovery_file();
    node.disk = crate::store::sim::SimDisk::default();
    node.guard = None;
    node.init().unwrap();
    let running = boot(&mut node);
    let own = running.kek("active");
    node.ledger.encrypt(&running);
    assert_eq!(running.handle.restore(export(&node)).unwrap().len(), 2);
    assert_eq!(running.kek("active"), own);
    node.ledger.assert_holds(&running);
    drop(running);
    drop(boot_and_read(&mut node));
}

#[test]
fn two_recoveries_in_one_second_keep_what_was_there_before_each() {
    let mut node = Node::new();
    operations::insure(&mut node);
    operations::grow(&mut node);
    node.keep_recovery_file();
    let files = |node: &Node| node.files().into_keys().filter(|name| name.ends_with("node/host.key")).count();
    for kept in 1..=3 {
        assert_eq!(files(&node), kept);
        let kek = boot(&mut node).kek("active");
        node.damage_both(&format!("keyring/{kek}.kek"));
        node.recover().unwrap();
    }
    let running = boot(&mut node);
    node.ledger.encrypt(&running);
}

#[test]
fn a_recovery_file_that_lies_alone_is_overwritten_by_nobody() {
    let mut node = Node::new();
    operations::insure(&mut node);
    operations::grow(&mut node);
    node.keep_recovery_file();
    let file = node.files().remove(recovery::FILE);
    node.disk = crate::store::sim::SimDisk::default();
    node.make_top();
    node.scribble(recovery::FILE, file.clone());
    assert!(node.init().is_err());
    assert_eq!(node.files().get(recovery::FILE), file.as_ref());
    node.recover().unwrap();
    let kept =
        node.files().into_iter().filter(|(name, _)| name.starts_with("roots/") && name.ends_with("recovery.age"));
    assert!(kept.map(|(_, content)| Some(content)).any(|content| content == file), "it is kept beside the new one");
}

#[test]
fn a_kek_that_came_back_from_a_recovery_file_of_before_its_activation_is_not_destroyed_without_proof() {
    let mut node = Node::new();
    operations::insure(&mut node);
    operations::grow(&mut node);
    let running = boot(&mut node);
    let next: KekId = running.ask(KeeperHandle::rotate).unwrap().id.parse().unwrap();
    // As rotate.md says: between `keys rotate` and `keys activate`.
    node.keep_recovery_file();
    running.activate(next, false).unwrap();
    let text = running.encrypt().unwrap();
    drop(running);
    node.disk = crate::store::sim::SimDisk::default();
    node.guard = None;
    node.init().unwrap();
    let running = boot(&mut node);
    assert!(running.handle.restore(export(&node)).unwrap().contains(&next));
    assert!(running.decrypt(&text).unwrap());
    let retired = running.handle.retire(next, RetireTo::Destroyed, Proof::Scan { backups_since: None });
    assert!(matches!(retired, Err(KeeperError::NoProof { .. })), "{:?}", retired.map(drop));
    assert!(running.decrypt(&text).unwrap());
}
