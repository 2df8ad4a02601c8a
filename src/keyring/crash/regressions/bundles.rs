//! Keys that several nodes share.

use super::*;
use crate::keyring::KeeperError;
use crate::keyring::bundle;
use crate::keyring::uses::rotate_at;

#[test]
fn a_bundle_whose_acceptance_was_killed_at_any_point_can_be_accepted_again() {
    let mut node = Node::new();
    operations::be_given(&mut node);
    let shared = KekId::from_bytes([4; 16]);
    let steps = steps(&node, |node, running| operations::accept(node, running).unwrap());
    let mut wrong = Vec::new();
    for (at, step) in steps.iter().enumerate().filter(|(_, step)| Fault::KillAfter.fits(**step)) {
        let mut node = node.on(node.disk.copy());
        let running = node.start();
        running.first_attempt().unwrap();
        node.ledger.encrypt(&running);
        node.disk.plan(Some((at, Fault::KillAfter)));
        drop(operations::accept(&node, &running));
        node.disk = node.disk.after_kill();
        drop(running);
        let running = boot(&mut node);
        if let Err(refused) = operations::accept(&node, &running) {
            wrong.push(format!("step {at}, {step:?}: {refused:?}"));
            continue;
        }
        assert_eq!(running.kek("active"), shared);
        node.ledger.encrypt(&running);
        node.ledger.assert_holds(&running);
        drop(running);
        let running = boot(&mut node);
        assert_eq!(running.kek("active"), shared);
        node.ledger.assert_holds(&running);
    }
    assert!(wrong.is_empty(), "{} of {} steps:\n{}", wrong.len(), steps.len(), wrong.join("\n"));
}

#[test]
fn a_successor_that_the_other_nodes_do_not_have_is_activated_only_on_the_operators_word() {
    let mut node = Node::new();
    operations::be_asked(&mut node);
    let file = node.file.clone();
    let running = boot(&mut node);
    operations::make_bundle(&file, &running).unwrap();
    let shared = running.kek("active");
    let next = pending(&running);
    assert!(running.activate(next, false).is_err(), "nobody else can read what is written from now on");
    assert_eq!(running.kek("active"), shared);
    // A bundle that was made since has it.
    let other = node.on(node.disk.copy());
    running.activate(next, true).unwrap();
    drop(running);
    let running = other.start();
    running.first_attempt().unwrap();
    operations::make_bundle(&file, &running).unwrap();
    running.activate(next, false).unwrap();
}

#[test]
fn a_bundle_is_refused_when_the_part_of_the_limit_that_it_leaves_is_used_up_already() {
    let mut node = Node::new();
    operations::be_asked(&mut node);
    let file = node.file.clone();
    for (uses, is_made) in [(rotate_at(true) / 2, true), (rotate_at(true) + 1, false), (2 * rotate_at(true), false)] {
        let mut node = node.on(node.disk.copy());
        node.set_uses(uses);
        let running = boot(&mut node);
        assert_eq!(operations::make_bundle(&file, &running).is_ok(), is_made, "{uses} uses");
        node.ledger.encrypt(&running);
        assert_eq!(running.row("active").unwrap().shared, is_made, "{uses} uses");
    }
}

#[test]
fn the_secret_half_of_a_request_that_has_expired_is_gone_after_a_start() {
    let mut node = Node::new();
    operations::grow(&mut node);
    node.live(|running| drop(running.ask(|keeper| keeper.bundle_request("cp-2".into())).unwrap()));
    let lies_there = |node: &Node| node.files().keys().any(|name| name.contains(bundle::REQUEST_FILE));
    drop(boot(&mut node));
    assert!(lies_there(&node), "it is good for a day");
    node.clock += bundle::VALID_SECONDS + 60;
    let running = boot(&mut node);
    running.wait_for("the secret half of an expired request stays", || !lies_there(&node));
}

#[test]
fn whoever_shares_the_active_kek_is_not_forgotten_and_one_node_counts_once() {
    let mut node = Node::new();
    operations::be_asked(&mut node);
    let file = node.file.clone();
    let running = boot(&mut node);
    let other = |name: &str| {
        let mut request = bundle::BundleRequest::decode(&file).unwrap();
        name.clone_into(&mut request.node);
        request.parent = operations::other_parent(name.as_bytes()[3]);
        request.encode()
    };
    // Twice to one node, and once to another one.
    for request in [other("cp-2"), other("cp-2"), other("cp-3")] {
        operations::make_bundle(&request, &running).unwrap();
    }
    for rotation in 0..20 {
        let next = pending(&running);
        operations::make_bundle(&other("cp-2"), &running).unwrap();
        let refused = running.activate(next, false);
        assert!(
            matches!(&refused, Err(KeeperError::NotAllWereGiven { lacking, .. }) if lacking == "cp-3"),
            "rotation {rotation}: {refused:?}"
        );
        operations::make_bundle(&other("cp-3"), &running).unwrap();
        running.activate(next, false).unwrap();
    }
    node.ledger.encrypt(&running);
}
