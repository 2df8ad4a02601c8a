//! Changes that fail or are cut: the recovery file has every key that is in use and none that was destroyed, and no KEK is left
//! that no state names.

use super::*;
use crate::keyring::keeper::Proof;
use crate::keyring::recovery::{self, Identity};
use crate::keyring::ring::RetireTo;
use crate::keyring::{RESERVED_BLOCK_USES, Resume};
use crate::store::sim::SimDisk;

/// A node with a recovery file and three KEKs: two that were active, the older one first, and the active one.
fn with_two_former() -> (Node, [KekId; 2]) {
    let mut node = Node::new();
    operations::insure(&mut node);
    operations::grow(&mut node);
    let first = boot(&mut node).kek("deactivated");
    node.live(|running| running.renew().unwrap());
    let rows = boot(&mut node).table().keys;
    let former = rows.iter().filter(|row| row.state == "deactivated").map(|row| row.id.parse::<KekId>().unwrap());
    let second = former.into_iter().find(|id| *id != first).unwrap();
    (node, [first, second])
}

/// Every KEK that decrypts is in each generation of the recovery file.
fn assert_recovery_file_is_complete(node: &Node, running: &Running, when: &str) {
    let keks = keks(running, |state| state != "destroyed");
    let found = node.recovery_files(node.identity.as_ref().unwrap());
    for name in [recovery::FILE.to_owned(), format!("{}.prev", recovery::FILE)] {
        let has = &found.iter().find(|(found, _)| *found == name).unwrap_or_else(|| panic!("{when}: no {name}")).1;
        let lacking: Vec<_> = keks.iter().filter(|kek| !has.contains(kek)).collect();
        assert!(lacking.is_empty(), "{when}: {name} lacks {lacking:?}, which is in use");
    }
}

/// The same soon after a start, and a KEK that was destroyed is in none.
fn assert_recovery_file_fits(node: &Node, running: &Running, when: &str) {
    let gone = keks(running, |state| state == "destroyed");
    running.wait_for(&format!("{when}: a KEK that was destroyed stays in a recovery file"), || {
        let found = node.recovery_files(node.identity.as_ref().unwrap());
        !found.iter().any(|(_, keks)| gone.iter().any(|kek| keks.contains(kek)))
    });
    assert_recovery_file_is_complete(node, running, when);
}

fn keks(running: &Running, is_wanted: impl Fn(&str) -> bool) -> Vec<KekId> {
    let rows = running.table().keys.into_iter().filter(|row| is_wanted(&row.state));
    rows.map(|row| row.id.parse().unwrap()).collect()
}

#[test]
fn a_destruction_that_fails_leaves_the_recovery_file_with_every_key_that_is_in_use() {
    let (node, [former, _]) = with_two_former();
    let retire = |running: &Running| running.handle.retire(former, RetireTo::Destroyed, Proof::Waived);
    let steps = steps(&node, |_, running| drop(retire(running).unwrap()));
    for failure in [Failure::NoSpace, Failure::Io] {
        let fault = Fault::Error(failure, Extent::Once);
        for (at, step) in steps.iter().enumerate().filter(|(_, step)| fault.fits(**step)) {
            let mut node = node.on(node.disk.copy());
            let running = node.start();
            running.first_attempt().unwrap();
            node.disk.plan(Some((at, fault)));
            let result = retire(&running).map(drop);
            assert!(node.disk.was_struck());
            let when = format!("{fault:?} at step {at}, {step:?}: {result:?}");
            assert_recovery_file_is_complete(&node, &running, &when);
            // The process is killed, and not only stopped.
            node.disk = node.disk.after_kill();
            drop(running);
            let running = boot(&mut node);
            assert_recovery_file_fits(&node, &running, &format!("at the next boot, {when}"));
        }
    }
}

#[test]
fn a_destruction_that_is_cut_leaves_the_recovery_file_with_every_key_that_is_in_use() {
    let (node, [former, _]) = with_two_former();
    let retire = |running: &Running| running.handle.retire(former, RetireTo::Destroyed, Proof::Waived);
    let steps = steps(&node, |_, running| drop(retire(running).unwrap()));
    for (at, step) in steps.iter().enumerate().filter(|(_, step)| Fault::KillAfter.fits(**step)) {
        let mut node = node.on(node.disk.copy());
        let running = node.start();
        running.first_attempt().unwrap();
        node.disk.plan(Some((at, Fault::KillAfter)));
        drop(retire(&running));
        node.disk = node.disk.after_kill();
        drop(running);
        let running = boot(&mut node);
        assert_recovery_file_fits(&node, &running, &format!("killed after step {at}, {step:?}"));
    }
}

#[test]
fn the_key_of_a_destroyed_kek_is_in_no_recovery_file_also_while_another_kek_does_not_open() {
    let (mut node, [damaged, condemned]) = with_two_former();
    node.damage_both(&format!("keyring/{damaged}.kek"));
    node.clock += 10;
    let running = boot(&mut node);
    let identity = node.identity.clone().unwrap();
    // One that was refused is still in use.
    if running.handle.retire(condemned, RetireTo::Destroyed, Proof::Waived).is_ok() {
        assert_is_in_no_recovery_file(&node, &identity, condemned);
        drop(running);
        drop(boot(&mut node));
        assert_is_in_no_recovery_file(&node, &identity, condemned);
    }
}

fn assert_is_in_no_recovery_file(node: &Node, identity: &Identity, kek: KekId) {
    for (name, keks) in node.recovery_files(identity) {
        assert!(!keks.contains(&kek), "{name} has the key of a KEK that the operator was told is destroyed");
    }
}

#[test]
fn a_kek_that_does_not_open_costs_one_more_recovery_file_and_not_one_for_each_change() {
    let (mut node, [damaged, _]) = with_two_former();
    node.damage_both(&format!("keyring/{damaged}.kek"));
    let identity = node.identity.clone().unwrap();
    for _ in 0..3 {
        node.clock += 10;
        let running = boot(&mut node);
        running.renew().unwrap();
        let files = node.recovery_files(&identity);
        assert!(files.iter().any(|(_, keks)| keks.contains(&damaged)), "the lost KEK is in no recovery file any more");
        let own = [recovery::FILE.to_owned(), format!("{}.prev", recovery::FILE)];
        let copies: Vec<_> = files.iter().map(|(name, _)| name.trim_end_matches(".prev")).collect();
        let mut copies: Vec<_> = copies.into_iter().filter(|name| !own.iter().any(|own| own == name)).collect();
        copies.dedup();
        assert!(copies.len() <= 1, "{copies:?}");
    }
}

#[test]
fn a_resumed_kek_counts_on_from_no_less_than_was_handed_out() {
    let mut node = Node::new();
    operations::be_asked(&mut node);
    let file = node.file.clone();
    node.live(|running| drop(operations::make_bundle(&file, running).unwrap()));
    node.keep_recovery_file();
    let running = boot(&mut node);
    let before = running.keyring.uses().unwrap();
    running.wait_for("no uses are handed out", || {
        running.keyring.claim(RESERVED_BLOCK_USES / 4);
        running.keyring.uses().unwrap() > before + 3 * RESERVED_BLOCK_USES
    });
    node.ledger.encrypt(&running);
    drop(running);
    // The machine burns down, and another one takes its place.
    node.disk = SimDisk::default();
    node.recover_to(Resume::ActiveKek).unwrap();
    let running = boot(&mut node);
    node.ledger.assert_holds(&running);
}
