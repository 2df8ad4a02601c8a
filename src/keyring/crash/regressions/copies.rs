//! Mode "rooted": no text goes out that only this node can read, while the provider answers.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::thread;

use super::*;
use crate::keyring::KeeperError;
use crate::keyring::crash::provider::Silence;
use crate::keyring::evidence::{KekUse, Reach, Scan};
use crate::keyring::keeper::Proof;
use crate::keyring::ring::RetireTo;

fn rooted() -> (Node, KekId) {
    let mut node = Node::new();
    operations::grow_rooted(&mut node);
    let active = node.start().kek("active");
    node.disk = node.disk.after_cut(Crash::Lost);
    (node, active)
}

/// The first texts of this boot, by many callers that waited for it, those that come later, and those of the next boot: a node
/// with nothing but the provider reads them all.
fn assert_every_text_has_its_copies(node: &mut Node) {
    let reader = node.neighbour().start();
    reader.first_attempt().unwrap();
    for _ in 0..2 {
        node.disk = node.disk.after_cut(Crash::Lost);
        let running = node.start();
        let first = thread::scope(|scope| {
            let callers: Vec<_> = (0..8).map(|_| scope.spawn(|| running.encrypt())).collect();
            callers.into_iter().map(|caller| caller.join().unwrap().unwrap()).collect::<Vec<_>>()
        });
        first.into_iter().for_each(|text| node.ledger.take(text));
        node.ledger.assert_opens_elsewhere(&reader);
        running.wait_for("copies stay owed", || running.handle.overview().unwrap().roots.owed == 0);
        node.ledger.encrypt(&running);
        node.ledger.assert_holds(&running);
        node.ledger.assert_opens_elsewhere(&reader);
    }
}

#[test]
fn damaged_copies_of_the_active_kek_cost_no_text_its_copies() {
    let (node, active) = rooted();
    let name = format!("keyring/{active}.wraps");
    for loss in LOSSES {
        let mut node = node.on(node.disk.copy());
        node.set(&name, loss.map(<[u8]>::to_vec));
        assert_every_text_has_its_copies(&mut node);
    }
}

#[test]
fn copies_of_the_active_kek_that_are_damaged_twice_cost_no_text_its_copies() {
    let (mut node, active) = rooted();
    node.damage_both(&format!("keyring/{active}.wraps"));
    assert_every_text_has_its_copies(&mut node);
}

#[test]
fn a_lost_newest_state_costs_no_text_its_copies() {
    let (node, _) = rooted();
    for loss in LOSSES {
        assert_every_text_has_its_copies(&mut without_newest_state(&node, loss));
    }
}

#[test]
fn a_lost_active_kek_costs_no_text_its_copies() {
    let (mut node, active) = rooted();
    node.damage_both(&format!("keyring/{active}.kek"));
    assert_every_text_has_its_copies(&mut node);
}

/// A neighbour's KEK, with a text of it in the ledger that this node has not read yet.
fn with_foreign_text(node: &mut Node) -> KekId {
    let other = node.neighbour();
    let running = other.start();
    running.first_attempt().unwrap();
    node.ledger.take(running.encrypt().unwrap());
    running.kek("active")
}

fn is_kept(running: &Running, kek: KekId) -> bool {
    running.table().keys.iter().any(|row| row.id == kek.to_string())
}

#[test]
fn a_copy_of_a_neighbours_kek_that_a_full_disk_prevented_is_made_later() {
    let (mut node, _) = rooted();
    let foreign = with_foreign_text(&mut node);
    let keep = |node: &Node, running: &Running| {
        node.ledger.assert_holds(running);
        running.wait_for("a neighbour's KEK is not kept on a disk that is well", || is_kept(running, foreign));
    };
    let fault = Fault::Error(Failure::NoSpace, Extent::Once);
    let steps = steps(&node, keep);
    let fitting = steps.iter().enumerate().filter(|(_, step)| fault.fits(**step)).map(|(at, _)| at);
    let places: BTreeSet<usize> = fitting.collect();
    assert!(places.len() > 5, "{steps:?}");
    for at in places {
        let mut node = node.on(node.disk.copy());
        let running = node.start();
        running.first_attempt().unwrap();
        node.disk.plan(Some((at, fault)));
        node.ledger.assert_holds(&running);
        running.wait_for(&format!("step {at}: the copy is never made"), || is_kept(&running, foreign));
        drop(running);
        node.provider.as_ref().unwrap().plan(Some((0, Silence::Away)));
        drop(boot_and_read(&mut node));
    }
}

/// The neighbour refuses it for itself: its kube-apiserver keeps its seed under that KEK for as long as the key_id is the same.
#[test]
fn a_neighbours_kek_is_not_destroyed_while_the_neighbours_kube_apiserver_may_write_under_it() {
    let (node, _) = rooted();
    let other = node.neighbour().start();
    other.first_attempt().unwrap();
    let (seed, foreign) = (other.encrypt().unwrap(), other.kek("active"));
    let running = node.start();
    running.first_attempt().unwrap();
    assert!(running.decrypt(&seed).unwrap());
    running.wait_for("it is kept", || is_kept(&running, foreign));
    // It is active nowhere any more, and in pre-activation nowhere either.
    other.renew().unwrap();
    assert!(other.handle.retire(foreign, RetireTo::Destroyed, Proof::Waived).is_err());
    let now = running.clock.load(Ordering::SeqCst) + 3600;
    running.clock.store(now, Ordering::SeqCst);
    let keks = vec![KekUse { kek: running.kek("active").to_string(), objects: 3 }];
    running
        .handle
        .scanned(Scan { at: now, revision: 7, objects: 3, foreign: 0, reach: Reach::Whole, keks, keys: Vec::new() })
        .unwrap();
    let retired = running.handle.retire(foreign, RetireTo::GoneEverywhere, Proof::Scan { backups_since: Some(now) });
    assert!(matches!(retired, Err(KeeperError::UnderKeyId(_))), "{:?}", retired.map(drop));
    assert!(running.decrypt(&seed).unwrap(), "an object that the neighbour writes a moment later");
}

#[cfg(feature = "etcd")]
#[test]
fn a_call_of_kube_apiserver_that_waits_with_a_scan_for_the_same_kek_keeps_it_all_the_same() {
    let (node, _) = rooted();
    let other = node.neighbour().start();
    other.first_attempt().unwrap();
    let (text, foreign) = (other.encrypt().unwrap(), other.kek("active"));
    let running = node.start();
    running.first_attempt().unwrap();
    let provider = node.provider.as_ref().unwrap();
    provider.plan(Some((0, Silence::Hangs)));
    let pause = std::time::Duration::from_millis(100);
    thread::scope(|scope| {
        let scan = scope.spawn(|| running.tried(&text));
        thread::sleep(pause);
        let call = scope.spawn(|| running.decrypt(&text));
        thread::sleep(pause);
        provider.plan(None);
        assert!(scan.join().unwrap().unwrap() && call.join().unwrap().unwrap());
    });
    running.wait_for("the next start has to ask the provider again", || is_kept(&running, foreign));
}
