//! Files that are damaged or lost: the node starts, every time, and soon has two good copies of each again.

use super::*;
use crate::keyring::crash::provider::Silence;
use crate::keyring::recovery;
use crate::store::container;
use crate::store::{Kind, StoreError};

/// A rooted node with a KEK in pre-activation, and without the file of its active one. Gives the lost KEK.
fn without_active_while_one_is_pending(node: &mut Node) -> KekId {
    operations::grow_rooted(node);
    node.live(|running| _ = pending(running));
    let active = node.start().kek("active");
    node.disk = node.disk.after_cut(Crash::Lost);
    node.damage_both(&format!("keyring/{active}.kek"));
    active
}

#[test]
fn a_rooted_node_whose_active_kek_is_damaged_while_another_is_pending_starts_every_time() {
    let mut node = Node::new();
    without_active_while_one_is_pending(&mut node);
    for _ in 0..3 {
        let running = boot(&mut node);
        node.ledger.encrypt(&running);
        // The texts of the lost one are read through the provider.
        node.ledger.assert_holds(&running);
    }
    let other = node.neighbour().start();
    other.first_attempt().unwrap();
    node.ledger.assert_opens_elsewhere(&other);
}

#[test]
fn a_rooted_node_whose_active_kek_is_damaged_while_another_is_pending_starts_while_its_provider_is_away() {
    let mut node = Node::new();
    without_active_while_one_is_pending(&mut node);
    node.provider.as_ref().unwrap().plan(Some((0, Silence::Away)));
    drop(boot(&mut node));
    let running = boot(&mut node);
    running.wait_for("nothing is encrypted while the provider is away", || running.encrypt().is_ok());
    node.ledger.encrypt(&running);
}

#[test]
fn a_rooted_node_starts_when_the_files_of_its_active_and_its_pending_kek_are_damaged() {
    let mut node = Node::new();
    without_active_while_one_is_pending(&mut node);
    for name in node.kek_files() {
        node.damage_both(&name);
    }
    for _ in 0..2 {
        let running = boot(&mut node);
        node.ledger.encrypt(&running);
        node.ledger.assert_holds(&running);
    }
}

#[test]
fn attempts_to_open_a_node_without_its_active_kek_leave_no_kek_file_each() {
    let mut node = Node::new();
    without_active_while_one_is_pending(&mut node);
    let before = node.kek_files().len();
    for _ in 0..4 {
        drop(node.open_once());
    }
    let after = node.kek_files().len();
    assert!(after <= before + 1, "{before} KEK files, and {after} after a few attempts");
}

fn kind_of(name: &str) -> Kind {
    match name {
        "node/host.key" => Kind::HostSecret,
        "node/root.seal" => Kind::NodeRoot,
        recovery::FILE => Kind::Recovery,
        _ if name.ends_with(".wraps") => Kind::Wraps,
        _ => Kind::LocalKek,
    }
}

/// What is wrong with either generation.
fn unsound(node: &Node, name: &str) -> Option<String> {
    [name.to_owned(), format!("{name}.prev")].into_iter().find_map(|path| {
        let Some(bytes) = node.file(&path) else { return Some(format!("{path} is not there")) };
        let damage = container::unwrap(kind_of(name), &bytes).err()?;
        Some(StoreError::Damaged { path: path.into(), damage }.to_string())
    })
}

fn assert_both_generations_come_back(whole: &Node, name: &str) {
    for loss in LOSSES {
        for generation in ["", ".prev"] {
            let mut node = whole.on(whole.disk.copy());
            node.set(&format!("{name}{generation}"), loss.map(<[u8]>::to_vec));
            let running = boot(&mut node);
            running.wait_for(&format!("{name}{generation} stays {loss:?}"), || unsound(&node, name).is_none());
            node.ledger.assert_holds(&running);
            drop(running);
            // Each of both is as good as the other one.
            node.set(name, None);
            drop(boot_and_read(&mut node));
        }
    }
}

pub(super) fn whole_node() -> Node {
    let mut node = Node::new();
    operations::insure(&mut node);
    operations::grow_and_rotate(&mut node);
    node
}

#[test]
fn a_damaged_generation_of_the_host_secret_is_written_anew() {
    assert_both_generations_come_back(&whole_node(), "node/host.key");
}

#[test]
fn a_damaged_generation_of_the_sealed_root_is_written_anew() {
    assert_both_generations_come_back(&whole_node(), "node/root.seal");
}

#[test]
fn a_damaged_generation_of_any_kek_is_written_anew() {
    let node = whole_node();
    let names = node.kek_files();
    assert_eq!(names.len(), 3, "active, pending and former");
    names.iter().for_each(|name| assert_both_generations_come_back(&node, name));
}

#[test]
fn a_damaged_generation_of_the_recovery_file_is_written_anew() {
    assert_both_generations_come_back(&whole_node(), recovery::FILE);
}

#[test]
fn a_damaged_generation_of_the_providers_copies_is_written_anew() {
    let mut node = Node::new();
    operations::grow_rooted(&mut node);
    let active = node.start().kek("active");
    node.disk = node.disk.after_cut(Crash::Lost);
    assert_both_generations_come_back(&node, &format!("keyring/{active}.wraps"));
}
