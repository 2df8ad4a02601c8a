//! The counter that guards the state: what is old is refused, and what is not is never refused.

use super::*;
use crate::keyring::crash::device::Trouble;
use crate::types::{Class, Explained};

#[test]
fn a_guarded_node_that_gave_its_keys_and_lost_its_newest_state_opens_at_every_boot_from_then_on() {
    let mut node = Node::new();
    operations::be_asked(&mut node);
    let file = node.file.clone();
    node.live(|running| drop(operations::make_bundle(&file, running).unwrap()));
    node.live_and_die(|running| _ = pending(running));
    assert_opens_from_then_on(&node);
}

#[test]
fn a_guarded_node_that_was_given_keys_and_lost_its_newest_state_opens_at_every_boot_from_then_on() {
    let mut node = Node::new();
    operations::be_given(&mut node);
    let file = node.file.clone();
    node.live(|running| drop(operations::accept_file(&file, running).unwrap()));
    node.live_and_die(|running| _ = pending(running));
    assert_opens_from_then_on(&node);
}

fn assert_opens_from_then_on(node: &Node) {
    for loss in LOSSES {
        let mut node = without_newest_state(node, loss);
        for _ in 0..3 {
            let running = boot(&mut node);
            node.ledger.encrypt(&running);
            node.ledger.assert_holds(&running);
        }
        boot(&mut node).renew().unwrap();
        drop(boot_and_read(&mut node));
    }
}

/// The node as it is guarded, and its disk from before.
fn guarded_later() -> (Node, Node) {
    let mut node = Node::new();
    operations::grow(&mut node);
    let before = node.on(node.disk.copy());
    operations::insure(&mut node);
    let order = node.order();
    node.live(|running| drop(running.ask(|keeper| keeper.reseal(order.clone())).unwrap()));
    node.live(|running| running.renew().unwrap());
    let old = node.on(before.disk.copy());
    (node, old)
}

#[test]
fn a_state_from_before_the_guard_is_refused_where_the_counter_is_ours() {
    let (mut node, old) = guarded_later();
    assert!(old.start().first_attempt().is_err(), "an old copy of the state directory opens");
    match old.open_once() {
        Err(error) => assert_eq!(error.class(), Class::Denied, "{error:?}"),
        Ok(table) => panic!("an old copy of the state directory opens: {table:?}"),
    }
    drop(boot_and_read(&mut node));
}

#[test]
fn a_state_without_a_guard_opens_where_no_counter_is_ours() {
    let (_, old) = guarded_later();
    let mut fresh = old.on(old.disk.copy());
    fresh.device = std::sync::Arc::new(super::super::device::Device::new());
    fresh.ledger = super::super::ledger::Ledger::default();
    let running = boot(&mut fresh);
    fresh.ledger.encrypt(&running);
}

/// What the TPM has, as soon as nothing is left to remove.
fn counters_come_down_to(node: &Node, running: &Running, count: usize) {
    running.wait_for("counters that guard nothing are removed", || node.device.counters().len() == count);
}

#[test]
fn a_counter_that_could_not_be_removed_and_guards_again_stays() {
    let mut node = Node::new();
    operations::insure(&mut node);
    operations::grow(&mut node);
    let (guarded, mut bare) = (node.order(), node.order());
    bare.guard = None;
    let running = boot(&mut node);
    // The removal is what asks the device next, and fails.
    running.ask(|keeper| keeper.reseal(bare.clone())).unwrap();
    node.device.plan(Some((0, Trouble::Busy)));
    running.ask(|keeper| keeper.reseal(guarded.clone())).ok();
    node.device.plan(None);
    running.ask(|keeper| keeper.reseal(guarded.clone())).unwrap();
    running.renew().unwrap();
    drop(running);
    for _ in 0..2 {
        let running = boot_and_read(&mut node);
        running.renew().unwrap();
        counters_come_down_to(&node, &running, 1);
    }
}

#[test]
fn a_state_in_which_the_counter_was_left_is_an_old_one_once_the_counter_guards_again() {
    let mut node = Node::new();
    operations::insure(&mut node);
    operations::grow(&mut node);
    let (guarded, mut bare) = (node.order(), node.order());
    bare.guard = None;
    let leave = |node: &mut Node, plan| {
        let running = boot(node);
        node.device.plan(plan);
        running.ask(|keeper| keeper.reseal(bare.clone())).unwrap();
        running
    };
    let mut trial = node.on(node.disk.copy());
    trial.device = node.device.apart();
    let running = leave(&mut trial, None);
    counters_come_down_to(&trial, &running, 0);
    // The last question is the removal.
    let last = trial.device.asked() - 1;
    drop(running);
    let running = leave(&mut node, Some((last, Trouble::Late)));
    node.device.wait_until_held();
    let old = node.on(node.disk.after_kill());
    node.device.release();
    counters_come_down_to(&node, &running, 0);
    running.ask(|keeper| keeper.reseal(guarded.clone())).unwrap();
    running.renew().unwrap();
    node.ledger.encrypt(&running);
    drop(running);
    let mut old = node.on(old.disk.copy());
    old.device = std::sync::Arc::clone(&node.device);
    let counters = node.device.counters();
    match old.open_once() {
        Err(error) => assert_eq!(error.class(), Class::Denied, "{error:?}"),
        Ok(table) => panic!("an old copy of the state directory opens: {table:?}"),
    }
    assert!(old.start().first_attempt().is_err(), "an old copy of the state directory opens");
    assert_eq!(node.device.counters(), counters, "it has removed the counter of the newest state");
    drop(boot_and_read(&mut node));
}

#[test]
fn the_counter_of_a_root_that_was_left_is_removed_by_a_later_start_too() {
    let mut node = Node::new();
    operations::insure(&mut node);
    operations::grow(&mut node);
    let old = node.on(node.disk.copy());
    let running = boot(&mut node);
    operations::renew_root(&node, &running).unwrap();
    // Killed at once.
    node.disk = node.disk.after_kill();
    drop(running);
    let running = boot_and_read(&mut node);
    counters_come_down_to(&node, &running, 1);
    drop(running);
    let mut old = old;
    old.device = std::sync::Arc::clone(&node.device);
    assert!(old.start().first_attempt().is_err(), "a disk from before opens");
    drop(boot_and_read(&mut node));
}

#[test]
fn a_recovery_that_fails_leaves_the_counter_of_the_old_root() {
    let mut node = Node::new();
    operations::insure(&mut node);
    operations::grow(&mut node);
    node.keep_recovery_file();
    let kek = boot(&mut node).kek("active");
    let whole = node.files();
    let file = whole.keys().find(|name| name.ends_with(&format!("{kek}.kek"))).unwrap().clone();
    node.damage_both(&format!("keyring/{kek}.kek"));
    let trial = node.on(node.disk.copy());
    trial.disk.plan(None);
    trial.recover().unwrap();
    for at in (0..trial.disk.steps().len()).step_by(5) {
        let mut cut = node.on(node.disk.copy());
        cut.disk.plan(Some((at, Fault::KillAfter)));
        drop(cut.recover());
        cut.disk = cut.disk.after_kill();
        // The operator finds the file in a backup.
        for name in [file.clone(), format!("{file}.prev")] {
            cut.scribble(&name, Some(whole[&name].clone()));
        }
        let running = cut.start();
        running.first_attempt().unwrap_or_else(|error| panic!("cut at step {at}: {error}"));
    }
}

#[test]
fn a_rolled_back_node_is_recovered_from_its_newest_recovery_file() {
    let mut node = Node::new();
    operations::insure(&mut node);
    operations::grow(&mut node);
    let old = node.disk.copy();
    node.live(|running| running.renew().unwrap());
    node.keep_recovery_file();
    node.disk = old;
    assert!(node.start().first_attempt().is_err());
    node.recover().unwrap();
    drop(boot_and_read(&mut node));
}
