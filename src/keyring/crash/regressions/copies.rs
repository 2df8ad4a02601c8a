//! Mode "rooted": no text goes out that only this node can read, while the provider answers.

use std::collections::BTreeSet;
use std::thread;

use super::*;
use crate::keyring::crash::provider::Silence;

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
