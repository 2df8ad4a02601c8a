//! The newest state is lost right after a change: what was ordered still holds.

use std::sync::Arc;

use super::*;
use crate::keyring::recovery::{self, Identity};

const INDEX: u32 = 0x0180_0001;

fn reseal(node: &mut Node) {
    let order = node.order();
    node.live_and_die(|running| drop(running.ask(|keeper| keeper.reseal(order.clone())).unwrap()));
}

/// Each generation of the recovery file is the identity's and has every KEK, and none is anybody else's.
fn assert_recovery_file_of(node: &Node, identity: &Identity, running: &Running) {
    let wanted: Vec<KekId> = running.table().keys.iter().map(|row| row.id.parse().unwrap()).collect();
    let found = node.recovery_files(identity);
    let generations = [recovery::FILE.to_owned(), format!("{}.prev", recovery::FILE)];
    for name in &generations {
        assert!(node.file(name).is_some(), "{name} is gone");
        let keks = found.iter().find(|(found, _)| found == name).map(|(_, keks)| keks);
        let keks = keks.unwrap_or_else(|| panic!("{name} does not open by the identity that was ordered last"));
        assert!(wanted.iter().all(|kek| keks.contains(kek)), "{name} lacks KEKs");
    }
}

#[test]
fn a_recovery_file_that_was_ordered_stays() {
    let mut node = Node::new();
    operations::grow(&mut node);
    node.identity = Some(Arc::new(Identity::generate()));
    reseal(&mut node);
    for loss in LOSSES {
        let mut node = without_newest_state(&node, loss);
        for _ in 0..2 {
            let running = boot(&mut node);
            assert_recovery_file_of(&node, node.identity.as_ref().unwrap(), &running);
            node.ledger.encrypt(&running);
        }
    }
}

#[test]
fn a_recovery_file_is_never_again_encrypted_to_recipients_that_were_replaced() {
    let mut node = Node::new();
    let leaked = Arc::new(Identity::generate());
    node.identity = Some(Arc::clone(&leaked));
    operations::grow(&mut node);
    node.identity = Some(Arc::new(Identity::generate()));
    reseal(&mut node);
    assert!(node.recovery_files(&leaked).is_empty());
    for loss in LOSSES {
        let mut node = without_newest_state(&node, loss);
        for _ in 0..2 {
            let running = boot(&mut node);
            running.renew().unwrap();
            assert_eq!(node.recovery_files(&leaked), [], "the recovery file is the leaked identity's again");
            assert_recovery_file_of(&node, node.identity.as_ref().unwrap(), &running);
        }
    }
}

#[test]
fn keys_that_another_node_gave_stay_the_active_ones() {
    let mut node = Node::new();
    operations::be_given(&mut node);
    let file = node.file.clone();
    node.live_and_die(|running| drop(operations::accept_file(&file, running).unwrap()));
    assert_stays_active_and_shared(&node, KekId::from_bytes([4; 16]));
}

#[test]
fn keys_that_were_given_to_another_node_stay_shared_and_active() {
    let mut node = Node::new();
    operations::be_asked(&mut node);
    let file = node.file.clone();
    let active = boot(&mut node).kek("active");
    node.live_and_die(|running| drop(operations::make_bundle(&file, running).unwrap()));
    assert_stays_active_and_shared(&node, active);
}

fn assert_stays_active_and_shared(node: &Node, kek: KekId) {
    for loss in LOSSES {
        let mut node = without_newest_state(node, loss);
        for _ in 0..2 {
            let running = boot(&mut node);
            assert_eq!(running.kek("active"), kek, "this node has left the KEK that it shares");
            assert!(running.row("active").unwrap().shared, "the active KEK is not called shared any more");
            node.ledger.encrypt(&running);
            node.ledger.assert_holds(&running);
        }
    }
}

#[test]
fn a_guard_that_was_just_made_stays() {
    let mut node = Node::new();
    operations::grow(&mut node);
    node.guard = Some(INDEX);
    reseal(&mut node);
    for loss in LOSSES {
        let mut node = without_newest_state(&node, loss);
        for _ in 0..2 {
            let running = boot(&mut node);
            assert!(running.handle.overview().unwrap().guarded, "the state is not guarded any more");
        }
    }
}
