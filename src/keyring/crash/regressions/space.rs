//! Disks without room: nothing piles up, and the cluster goes on.

use super::*;
use crate::keyring::crash::device::Trouble;
use crate::keyring::recovery;

/// Bytes. The newest sealed copies of KEKs fit, and nothing that is larger.
fn only_keks_fit(node: &Node) -> usize {
    node.kek_files().iter().map(|name| node.file(name).unwrap().len()).max().unwrap()
}

/// Bytes. A state fits, with one KEK more, and the recovery file does not.
fn states_fit(node: &Node) -> usize {
    let limit = node.file("state").unwrap().len() + 100;
    assert!(node.file(recovery::FILE).unwrap().len() > limit, "the node has too few KEKs for this test");
    limit
}

/// With enough KEKs that the recovery file is clearly larger than the state.
fn node() -> Node {
    let mut node = Node::new();
    operations::insure(&mut node);
    operations::grow(&mut node);
    node.live(|running| (0..6).for_each(|_| running.renew().unwrap()));
    node
}

fn full_above(limit: usize) -> Option<(usize, Fault)> {
    Some((0, Fault::Error(Failure::NoSpaceAbove(limit), Extent::FromThenOn)))
}

#[test]
fn rotations_that_a_nearly_full_disk_refuses_leave_no_kek_behind() {
    let whole = node();
    for limit in [only_keks_fit(&whole), states_fit(&whole)] {
        let mut node = whole.on(whole.disk.copy());
        let running = boot(&mut node);
        let (files, rows) = (node.kek_files(), running.table().keys.len());
        node.disk.plan(full_above(limit));
        for _ in 0..4 {
            assert!(running.ask(KeeperHandle::rotate).is_err());
            assert_eq!(node.kek_files(), files, "a KEK that no state names was left");
        }
        node.disk.plan(None);
        node.ledger.encrypt(&running);
        drop(running);
        let running = boot(&mut node);
        assert_eq!(running.table().keys.len(), rows);
        running.renew().unwrap();
        assert_eq!(running.table().keys.len(), rows + 1);
        node.ledger.assert_holds(&running);
    }
}

#[test]
fn starts_at_which_a_rotation_is_due_and_has_no_room_leave_no_kek_behind() {
    let mut node = node();
    let limit = states_fit(&node);
    let files = node.kek_files();
    node.clock += 365 * DAY;
    for _ in 0..3 {
        node.disk = node.disk.after_cut(Crash::Lost);
        node.disk.plan(full_above(limit));
        drop(node.open_once());
        assert_eq!(node.kek_files(), files, "a KEK that no state names was left");
    }
    node.disk = node.disk.after_cut(Crash::Lost);
    let running = boot(&mut node);
    assert_eq!(running.table().keys.len(), files.len() + 1);
    node.ledger.assert_holds(&running);
}

#[test]
fn starts_after_a_lost_state_that_have_no_room_leave_no_kek_behind() {
    let whole = node();
    for limit in [only_keks_fit(&whole), states_fit(&whole)] {
        let mut node = whole.on(whole.disk.copy());
        node.damage("state");
        let files = node.kek_files();
        for _ in 0..3 {
            node.disk = node.disk.after_cut(Crash::Lost);
            node.disk.plan(full_above(limit));
            drop(node.open_once());
            assert_eq!(node.kek_files(), files, "a KEK that no state names was left");
        }
        let running = boot(&mut node);
        assert!(running.table().keys.len() <= files.len() + 1);
        node.ledger.assert_holds(&running);
    }
}

#[test]
fn a_node_opens_and_decrypts_on_a_full_disk() {
    for prepare in [operations::grow, operations::grow_and_rotate, operations::grow_rooted] {
        let mut node = Node::new();
        prepare(&mut node);
        node.disk.plan(Some((0, FULL)));
        let running = node.start();
        node.ledger.assert_holds(&running);
        running.first_attempt().unwrap();
    }
}

#[test]
fn a_node_whose_active_kek_is_damaged_serves_by_its_provider_on_a_full_disk() {
    [true, false].into_iter().for_each(a_kek_without_room_is_replaced);
}

/// With room again, by a start or without one.
fn a_kek_without_room_is_replaced(starts_anew: bool) {
    let mut node = Node::new();
    operations::grow_rooted(&mut node);
    let running = boot(&mut node);
    let is_settled = || running.handle.overview().is_ok_and(|now| (now.roots.waits, now.roots.owed) == (None, 0));
    running.wait_for("the key_id does not settle", is_settled);
    let active = running.kek("active");
    drop(running);
    node.disk = node.disk.after_cut(Crash::Lost);
    node.damage_both(&format!("keyring/{active}.kek"));
    node.disk.plan(Some((0, FULL)));
    // The first question opens the keys, the second one is for another KEK.
    node.device.plan(Some((1, Trouble::Late)));
    let running = node.start();
    running.first_attempt().unwrap();
    node.ledger.take(running.encrypt().unwrap());
    let running = match starts_anew {
        true => {
            // A text of it brings it back from the provider.
            node.ledger.assert_holds(&running);
            node.device.release();
            drop(running);
            boot_and_read(&mut node)
        }
        false => {
            node.device.wait_until_held();
            node.disk.plan(None);
            node.device.release();
            running
        }
    };
    running.wait_for("a KEK that does not open stays the active one", || running.kek("active") != active);
    node.ledger.encrypt(&running);
    node.ledger.assert_holds(&running);
}

#[test]
fn a_node_that_was_stopped_encrypts_on_a_full_disk() {
    let mut node = Node::new();
    operations::grow(&mut node);
    assert_encrypts_where_no_block_is_free(&mut node);
}

#[test]
fn a_node_that_was_killed_encrypts_on_a_full_disk() {
    let mut node = Node::new();
    operations::grow(&mut node);
    node.live_and_die(|running| running.renew().unwrap());
    assert_encrypts_where_no_block_is_free(&mut node);
}

fn assert_encrypts_where_no_block_is_free(node: &mut Node) {
    node.disk = node.disk.after_cut(Crash::Lost);
    node.disk.fill();
    // Each of these is killed: no clean stop is what the next start lives from.
    for _ in 0..3 {
        let running = boot_and_read(node);
        node.ledger.encrypt(&running);
        node.ledger.assert_holds(&running);
        node.disk = node.disk.after_kill();
    }
}
