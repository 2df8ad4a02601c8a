//! A device that is slow or busy while something else happens.

use super::*;
use crate::keyring::crash::device::Trouble;
use crate::keyring::keeper::Proof;
use crate::keyring::ring::RetireTo;

/// A rooted node that has lost the sealed copy of a KEK that was active, and has a text of it.
fn with_a_kek_to_be_kept() -> (Node, KekId) {
    let mut node = Node::new();
    operations::set_up_rooted(&mut node);
    let provider = node.provider.as_ref().unwrap().shared();
    // The key_id has to move, or the KEK could not be destroyed.
    node.live(|running| {
        provider.rotate_to(2);
        running.wait_for("another KEK", || running.row("deactivated").is_some());
    });
    let former = boot(&mut node).kek("deactivated");
    node.disk = node.disk.after_cut(Crash::Lost);
    node.damage_both(&format!("keyring/{former}.kek"));
    (node, former)
}

#[test]
fn a_kek_that_is_destroyed_while_its_sealed_copy_is_made_stays_gone() {
    let (mut node, former) = with_a_kek_to_be_kept();
    node.ledger.condemned = Some(former);
    let running = boot(&mut node);
    node.device.plan(Some((0, Trouble::Late)));
    // Read through the provider, which makes the keeper ask the device for a root to seal it under.
    node.ledger.assert_holds(&running);
    node.device.wait_until_held();
    running.handle.retire(former, RetireTo::Destroyed, Proof::Waived).unwrap();
    node.device.release();
    // Answered after the device was.
    running.ask(KeeperHandle::rotate).unwrap();
    node.ledger.is_gone = true;
    node.ledger.assert_holds(&running);
    assert_is_gone(&node, &running, former);
    drop(running);
    let running = boot(&mut node);
    node.ledger.assert_holds(&running);
    assert_is_gone(&node, &running, former);
}

fn assert_is_gone(node: &Node, running: &Running, kek: KekId) {
    let row = running.table().keys.into_iter().find(|row| row.id == kek.to_string()).unwrap();
    assert_eq!(row.state, "destroyed");
    let left: Vec<_> = node.files().into_keys().filter(|name| name.contains(&kek.to_string())).collect();
    assert!(left.is_empty(), "{left:?} are there again");
}

const OLD: u32 = 0x0180_0001;
const NEW: u32 = 0x0180_0002;

/// Guarded by one counter, and resealed to another one.
fn move_the_counter(node: &mut Node) -> Running {
    operations::insure(node);
    operations::grow(node);
    assert_eq!(node.device.counters().into_keys().collect::<Vec<_>>(), [OLD]);
    node.guard = Some(NEW);
    let running = boot(node);
    let order = node.order();
    running.ask(|keeper| keeper.reseal(order.clone())).unwrap();
    running
}

fn assert_only_the_new_one_is_left(node: &Node, running: &Running) {
    let is_moved = || node.device.counters().into_keys().eq([NEW]);
    running.wait_for("the counter that is not used any more stays in the TPM", is_moved);
}

#[test]
fn a_counter_that_is_not_used_any_more_leaves_the_tpm() {
    let mut node = Node::new();
    let running = move_the_counter(&mut node);
    assert_only_the_new_one_is_left(&node, &running);
    running.renew().unwrap();
    node.ledger.assert_holds(&running);
    drop(running);
    drop(boot_and_read(&mut node));
}

#[test]
fn a_counter_that_is_not_used_any_more_leaves_the_tpm_also_when_the_device_is_busy_for_a_moment() {
    let count = {
        let mut node = Node::new();
        let running = move_the_counter(&mut node);
        assert_only_the_new_one_is_left(&node, &running);
        node.device.asked()
    };
    for at in 0..count {
        let mut node = Node::new();
        operations::insure(&mut node);
        operations::grow(&mut node);
        node.guard = Some(NEW);
        let running = boot(&mut node);
        let order = node.order();
        node.device.plan(Some((at, Trouble::Busy)));
        if running.ask(|keeper| keeper.reseal(order.clone())).is_err() {
            running.ask(|keeper| keeper.reseal(order.clone())).unwrap();
        }
        assert_only_the_new_one_is_left(&node, &running);
        drop(running);
        // One that nobody asked for any more strikes no later boot.
        node.device.plan(None);
        drop(boot_and_read(&mut node));
    }
}
