//! Clocks that were wrong and are right again.

use std::sync::atomic::Ordering;

use super::*;
use crate::keyring::MaxAge;
use crate::keyring::evidence::{KekUse, NoProof, Reach, Scan};
use crate::keyring::keeper::Proof;
use crate::keyring::ring::RetireTo;
use crate::keyring::{KeeperError, bundle};

/// Seconds since 1970.
const YEAR_2026: u64 = 1_767_225_600;
const YEAR_2100: u64 = 4_102_444_800;
/// Seconds. What [`MaxAge::DEFAULT`] says, and a day for what a wrong clock may hide.
const MAX_AGE: u64 = 91 * DAY;

/// The clock is right: within its age, counted from this moment, the active KEK is replaced.
fn assert_is_replaced_in_time(node: &mut Node) {
    node.clock = YEAR_2026;
    let running = boot(node);
    node.ledger.encrypt(&running);
    let old = running.keyring.key_id_now();
    drop(running);
    node.clock = YEAR_2026 + MAX_AGE;
    let running = boot(node);
    running.wait_for("a KEK from the future is never replaced", || running.keyring.key_id_now() != old);
    node.ledger.encrypt(&running);
    node.ledger.assert_holds(&running);
    assert!(MaxAge::new(std::time::Duration::from_secs(MAX_AGE - DAY)) == Some(MaxAge::DEFAULT));
}

#[test]
fn a_kek_that_was_made_while_the_clock_ran_ahead_is_replaced_in_time() {
    let mut node = Node::new();
    node.clock = YEAR_2100;
    operations::grow(&mut node);
    assert_is_replaced_in_time(&mut node);
}

#[test]
fn a_rotation_that_a_wrong_clock_caused_does_not_end_rotation_by_age() {
    let mut node = Node::new();
    node.clock = YEAR_2026 - DAY;
    operations::grow(&mut node);
    node.clock = YEAR_2100;
    node.live(|_| {});
    assert_is_replaced_in_time(&mut node);
}

#[test]
fn a_clock_that_runs_ahead_and_is_set_back_under_a_running_node_does_not_end_rotation_by_age() {
    let mut node = Node::new();
    node.clock = YEAR_2026 - DAY;
    operations::grow(&mut node);
    let running = boot(&mut node);
    let moves_at = |clock: u64| {
        let old = running.keyring.key_id_now();
        running.clock.store(clock, Ordering::SeqCst);
        running.wait_for(&format!("at {clock} the age of the active KEK is not seen"), || {
            running.keyring.key_id_now() != old
        });
    };
    moves_at(YEAR_2100);
    running.clock.store(YEAR_2026, Ordering::SeqCst);
    // The keeper answers before it looks at what is due, and looks before it answers the next one.
    drop((running.table(), running.table()));
    moves_at(YEAR_2026 + MAX_AGE);
}

#[test]
fn a_shared_kek_that_is_due_is_said_to_be_and_since_when() {
    let mut node = Node::new();
    node.clock = YEAR_2026;
    operations::grow(&mut node);
    let running = boot(&mut node);
    let request = running.ask(|keeper| keeper.bundle_request("n".into())).unwrap();
    running.ask(|keeper| keeper.bundle_make(request.clone(), bundle::fingerprint(&request))).unwrap();
    let due = running.table().keys[0].since + MAX_AGE - DAY;
    let overview = || running.handle.overview().unwrap();
    assert_eq!((overview().is_overdue, overview().due), (false, Some(due)));
    running.clock.store(due, Ordering::SeqCst);
    assert_eq!((overview().is_overdue, overview().due), (true, Some(due)));
}

/// What a clock is, and what a node does that meets it at a start: whether it replaces its KEK, and whether a bundle that it asked for
/// before is still taken. Nothing of it keeps a node from starting, encrypting or decrypting.
const WRONG: [(&str, u64, bool, bool); 7] = [
    ("there is none: 1970", 0, false, true),
    ("a year behind", YEAR_2026 - 365 * DAY, false, true),
    ("an hour behind", YEAR_2026 - 3600, false, true),
    ("right", YEAR_2026, false, true),
    ("two days ahead", YEAR_2026 + 2 * DAY, false, false),
    ("a year ahead", YEAR_2026 + 365 * DAY, true, false),
    ("at the last second of the year 9999", crate::types::clock::LAST, true, false),
];

fn boot_key_id(node: &Node) -> Option<crate::types::KeyId> {
    let running = node.start();
    running.first_attempt().unwrap();
    running.keyring.key_id_now()
}

#[test]
fn what_a_wrong_clock_can_do_is_this() {
    for (what, clock, replaces, takes_bundle) in WRONG {
        let mut node = Node::new();
        node.clock = YEAR_2026;
        operations::be_given(&mut node);
        let file = node.file.clone();
        let old = node.on(node.disk.copy());
        node.clock = clock;
        let running = boot(&mut node);
        node.ledger.encrypt(&running);
        if replaces {
            // As it was before the clock was wrong; the rotation may have come before the Encrypt.
            let first = boot_key_id(&old);
            running.wait_for(what, || running.keyring.key_id_now() != first);
        }
        node.ledger.assert_holds(&running);
        drop(running);
        // It is right again: nothing is lost, and age counts from now on.
        assert_is_replaced_in_time(&mut node);
        let mut node = old;
        node.clock = clock;
        let running = boot(&mut node);
        assert_eq!(operations::accept_file(&file, &running).is_ok(), takes_bundle, "{what}");
        node.ledger.encrypt(&running);
    }
}

#[test]
fn a_clock_that_was_behind_at_the_activation_does_not_make_a_scan_of_the_next_second_a_proof() {
    let mut node = Node::new();
    node.clock = YEAR_2026;
    operations::grow(&mut node);
    let running = boot(&mut node);
    let old = running.kek("active");
    running.renew().unwrap();
    // The clock is set right at once. kube-apiserver asks for the key_id once a minute, and may write under the old KEK until then.
    let now = YEAR_2026 + DAY;
    running.clock.store(now, Ordering::SeqCst);
    drop((running.table(), running.table()));
    let keks = vec![KekUse { kek: running.kek("active").to_string(), objects: 3 }];
    running
        .handle
        .scanned(Scan { at: now, revision: 7, objects: 3, foreign: 0, reach: Reach::Whole, keks, keys: Vec::new() })
        .unwrap();
    let retired = running.handle.retire(old, RetireTo::Destroyed, Proof::Scan { backups_since: Some(now) });
    assert!(matches!(retired, Err(KeeperError::NoProof { why: NoProof::Early, .. })), "{:?}", retired.map(drop));
}
