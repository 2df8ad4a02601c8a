//! A reload leaves nothing without a provider that opens it, unless it is told to.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::*;
use crate::keyring::KeeperError;
use crate::keyring::crash::provider::{Provider, Silence, proved, together};
use crate::keyring::evidence::{KeyUse, NoProof, Reach, Scan};
use crate::keyring::keeper::{Next, Proof};
use crate::keyring::ring::RetireTo;
use crate::keyring::rooted::Rooted;
use crate::provider::set::Role::{self, DecryptOnly, Optional, Required};
use crate::provider::set::{Providers, Strategy};
use crate::types::Explained;

fn set(members: &[(&str, Role, &Provider)], local_kek: bool) -> Option<Arc<Rooted>> {
    Some(proved(together(members, |rules| rules.local_kek = local_kek)))
}

fn start(members: &[(&str, Role, &Provider)], local_kek: bool) -> (Node, Running) {
    let node = Node::new();
    node.init().unwrap();
    let running = node.start_with(set(members, local_kek).unwrap());
    running.first_attempt().unwrap();
    (node, running)
}

fn assert_refused(running: &Running, next: Option<Arc<Rooted>>) {
    match running.handle.configure(next, None) {
        Ok(()) => panic!("what is stored has no opener any more"),
        Err(error) => {
            assert!(error.hint().contains("--abandon") && error.hint().contains("write = false"), "{error}");
        }
    }
}

#[test]
fn what_was_stored_in_mode_direct_keeps_its_opener() {
    let [k, l] = [Provider::of("k"), Provider::of("l")];
    let (_node, running) = start(&[("a", Required, &k)], false);
    let text = running.encrypt().unwrap();
    // Another key in the same table, in another one, and no provider at all.
    for next in [set(&[("a", Required, &l)], false), set(&[("b", Required, &l)], true), None] {
        assert_refused(&running, next);
        assert!(running.decrypt(&text).unwrap());
    }
    // It leaves by decrypting alone, under whatever name, and is remembered.
    running.handle.configure(set(&[("c", DecryptOnly, &k), ("a", Required, &l)], false), None).unwrap();
    assert!(running.decrypt(&text).unwrap());
    let alone = || set(&[("a", Required, &l)], false);
    assert_refused(&running, alone());
    running.handle.configure(alone(), Some(Proof::Waived)).unwrap();
    assert!(running.decrypt(&text).is_err());
    assert!(running.decrypt(&running.encrypt().unwrap()).unwrap());
}

#[test]
fn each_key_of_mode_direct_may_be_the_only_one_of_a_text() {
    let [k, l] = [Provider::of("k"), Provider::of("l")];
    let (_node, running) = start(&[("a", Required, &k)], false);
    let both = || set(&[("a", Required, &k), ("b", Required, &l)], false);
    running.handle.configure(both(), None).unwrap();
    for left in ["a", "b"] {
        let rest = [("a", Required, &k), ("b", Required, &l)].into_iter().filter(|(name, ..)| *name != left);
        assert_refused(&running, set(&rest.collect::<Vec<_>>(), false));
    }
    // Ways are no keys, and names are none.
    let ways = [("a", Required, &l), ("b", Required, &k), ("c", Required, &k)];
    running.handle.configure(set(&ways, false), None).unwrap();
    running.handle.configure(both(), None).unwrap();
}

#[test]
fn whoever_has_opened_nothing_that_its_key_has_made_is_not_what_is_left_of_it() {
    let [k, l] = [Provider::of("k"), Provider::of("l")];
    let (_node, running) = start(&[("a", Required, &k)], false);
    let text = running.encrypt().unwrap();
    let next = |openers: &[&str]| {
        let openers = openers.iter().map(|name| (*name).to_owned()).collect();
        Next { rooted: set(&[("c", DecryptOnly, &k), ("b", Required, &l)], false), openers }
    };
    let refused = running.handle.configure(next(&["b"]), None);
    assert!(matches!(refused, Err(KeeperError::OnlyWay { .. })), "{refused:?}");
    assert!(running.decrypt(&text).unwrap());
    running.handle.configure(next(&["b", "c"]), None).unwrap();
    // Where nobody leaves, nobody has to show anything.
    let rooted = running.keyring.rooted();
    running.handle.configure(Next { rooted, openers: std::collections::HashSet::new() }, None).unwrap();
}

#[test]
fn what_tells_a_key_and_opens_nothing_of_it_does_not_leave_unnoticed() {
    // Two keys that tell one identity: what the second one has made itself the first one does not open.
    let [k, other] = [Provider::of("k"), Provider::of("k")];
    other.shut();
    // Nothing waits for the second one, which may be found out before the first start is through.
    let (_node, running) = start(&[("a", Required, &k), ("b", Optional, &other)], true);
    running.encrypt().unwrap();
    let is_told = || running.keyring.rooted().unwrap().providers.members()[1].is_twin();
    running.wait_for("it refuses what the key has made", is_told);
    let rooted = running.keyring.rooted().unwrap();
    let alone = || {
        let first = vec![rooted.providers.members()[0].clone()];
        let providers = Providers::new(first, Strategy::Ordered);
        Some(Arc::new(Rooted::new(rooted.runtime.clone(), providers, rooted.rules.clone())))
    };
    assert_refused(&running, alone());
    // What stays as it is keeps nothing from being changed.
    running.handle.configure(Some(Arc::clone(&rooted)), None).unwrap();
    running.handle.configure(alone(), Some(Proof::Waived)).unwrap();
}

#[test]
fn what_opens_the_texts_of_other_nodes_alone_does_not_leave_unnoticed() {
    let [k, l] = [Provider::of("k"), Provider::of("l")];
    let (_other, other) = start(&[("a", Required, &k)], true);
    let text = other.encrypt().unwrap();
    let (_node, running) = start(&[("a", DecryptOnly, &k), ("b", Required, &l)], true);
    assert_refused(&running, set(&[("b", Required, &l)], true));
    assert!(running.decrypt(&text).unwrap());
    running.handle.configure(set(&[("b", Required, &l)], true), Some(Proof::Waived)).unwrap();
}

#[test]
fn a_name_that_stands_for_another_key_now_opens_what_that_one_does() {
    let [k, l] = [Provider::of("k"), Provider::of("l")];
    let (_node, running) = start(&[("a", Required, &k)], true);
    running.encrypt().unwrap();
    let refused = running.handle.configure(set(&[("a", Required, &l)], true), None);
    assert!(matches!(refused, Err(KeeperError::LastOpener { .. })), "{refused:?}");
}

#[test]
fn a_provider_whose_copies_another_one_has_as_well_leaves_without_a_word() {
    let [k, l] = [Provider::of("k"), Provider::of("l")];
    let (_node, running) = start(&[("a", Required, &k), ("b", Required, &l)], true);
    running.encrypt().unwrap();
    running.handle.configure(set(&[("b", Required, &l)], true), None).unwrap();
    // And one whose KEKs are all destroyed.
    running.wait_for("the key_id stays", || running.handle.overview().unwrap().roots.waits.is_none());
    running.handle.configure(set(&[("b", DecryptOnly, &l), ("a", Required, &k)], true), None).unwrap();
    running.wait_for("the key_id stays", || running.handle.overview().unwrap().roots.waits.is_none());
    let former = running.table().keys.into_iter().filter(|row| row.state == "deactivated");
    for row in former {
        running.handle.retire(row.id.parse().unwrap(), RetireTo::Destroyed, Proof::Waived).unwrap();
    }
    running.handle.configure(set(&[("a", Required, &k)], true), None).unwrap();
}

/// What a scan has not seen yet is written a moment later.
#[test]
fn on_a_scan_no_key_is_given_up_that_still_writes_or_has_just_ceased_to() {
    let [k, l] = [Provider::of("k"), Provider::of("l")];
    let (_node, running) = start(&[("a", Required, &k), ("b", Required, &l)], false);
    let text = running.encrypt().unwrap();
    let settles = || running.handle.overview().unwrap().roots.waits.is_none();
    running.wait_for("it settles", settles);
    let now = running.clock.load(Ordering::SeqCst) + 3600;
    running.clock.store(now, Ordering::SeqCst);
    let used = KeyUse { kind: "vault".into(), identity: "l".into(), version: "1".into(), objects: 3 };
    running
        .handle
        .scanned(Scan {
            at: now,
            revision: 7,
            objects: 3,
            foreign: 0,
            reach: Reach::Whole,
            keks: Vec::new(),
            keys: vec![used],
        })
        .unwrap();
    let give_up = || {
        let next = set(&[("b", Required, &l)], false);
        running.handle.configure(next, Some(Proof::Scan { backups_since: Some(now) })).unwrap_err()
    };
    assert!(matches!(give_up(), KeeperError::NoProofOfKey { why: NoProof::Writes, .. }));
    let before = running.table().key_id;
    running.handle.configure(set(&[("a", DecryptOnly, &k), ("b", Required, &l)], false), None).unwrap();
    running.wait_for("the key_id has moved", || running.table().key_id != before && settles());
    assert!(matches!(give_up(), KeeperError::NoProofOfKey { why: NoProof::Early, .. }));
    assert!(running.decrypt(&text).unwrap());
}

/// Who tells the key has not opened it: a name is no proof.
#[test]
fn a_key_whose_last_opener_leaves_for_one_that_has_opened_nothing_needs_a_proof_too() {
    let k = Provider::of("k");
    let (_node, running) = start(&[("a", Required, &k)], false);
    let text = running.encrypt().unwrap();
    let next = || Next { rooted: set(&[("c", DecryptOnly, &k)], true), openers: HashSet::new() };
    assert!(running.handle.configure(next(), None).is_err());
    let unproved = running.handle.configure(next(), Some(Proof::Scan { backups_since: None }));
    assert!(matches!(unproved, Err(KeeperError::NoProofOfKey { .. })), "{unproved:?}");
    assert!(running.decrypt(&text).unwrap());
    running.handle.configure(next(), Some(Proof::Waived)).unwrap();
}

/// Between the restart and the end of a migration kube-apiserver reads what is stored, and so does the migration.
#[test]
fn who_does_what_the_refusal_of_a_key_that_writes_says_keeps_what_is_stored_readable() {
    let k = Provider::of("k");
    let (node, running) = start(&[("a", Required, &k)], false);
    let text = running.encrypt().unwrap();
    let settles = || running.handle.overview().unwrap().roots.waits.is_none();
    running.wait_for("it settles", settles);
    // As `reload --abandon` without its only provider, which needs a local KEK again.
    let refused = running.handle.configure(Next::from(None), Some(Proof::Scan { backups_since: None })).unwrap_err();
    assert!(matches!(refused, KeeperError::NoProofOfKey { why: NoProof::Writes, .. }), "{refused:?}");
    let hint = refused.hint().to_owned();
    drop(running);
    // Its only provider is removed, and it is restarted.
    let running = node.start();
    running.first_attempt().unwrap();
    running.wait_for("the key_id has moved", || running.table().key_id != text.key_id.as_str());
    let opens = running.decrypt(&text);
    assert!(opens.is_ok() || !hint.contains("its table removed and nodeseald restarted"), "{hint}: {:?}", opens.err());
}

#[test]
fn a_refusal_names_the_provider_that_leaves_and_not_one_that_stays() {
    let [k, l] = [Provider::of("k"), Provider::of("l")];
    k.plan(Some((0, Silence::Away)));
    let node = Node::new();
    node.init().unwrap();
    // The second one has not answered since the start, and may have any key of its kind.
    let both = together(&[("stays", Required, &l), ("leaves", Optional, &k)], |rules| rules.local_kek = false);
    let running = node.start_with(both);
    running.first_attempt().unwrap();
    running.encrypt().unwrap();
    let rooted = running.keyring.rooted().unwrap();
    let first = vec![rooted.providers.members()[0].clone()];
    let providers = Providers::new(first, Strategy::Ordered);
    let next = Some(Arc::new(Rooted::new(rooted.runtime.clone(), providers, rooted.rules.clone())));
    // Whoever stays was not heard within the proof.
    let refused = running.handle.configure(Next { rooted: next, openers: HashSet::new() }, None);
    let Err(error) = refused else { return };
    assert!(error.to_string().contains("`leaves`"), "{error}");
}

/// In mode "direct" the active local KEK encrypts nothing, and no move of the key_id replaces it.
#[test]
fn a_kek_that_encrypts_nothing_in_mode_direct_keeps_no_key_of_a_former_provider_that_a_scan_does_not_need() {
    let [k, l] = [Provider::of("k"), Provider::of("l")];
    let (mut node, running) = start(&[("a", Required, &k)], true);
    running.encrypt().unwrap();
    let both = || set(&[("a", DecryptOnly, &k), ("b", Required, &l)], false);
    let before = running.table().key_id;
    running.handle.configure(both(), None).unwrap();
    let settles = |running: &Running| running.handle.overview().unwrap().roots.waits.is_none();
    running.wait_for("the key_id has moved", || running.table().key_id != before && settles(&running));
    // The storage was migrated, and hours later etcd is scanned.
    drop(running);
    node.clock += 7200;
    let running = node.start_with(both().unwrap());
    running.first_attempt().unwrap();
    running.wait_for("it settles", || settles(&running));
    let used = KeyUse { kind: "vault".into(), identity: "l".into(), version: "1".into(), objects: 3 };
    let scan = Scan {
        at: node.clock,
        revision: 7,
        objects: 3,
        foreign: 0,
        reach: Reach::Whole,
        keks: Vec::new(),
        keys: vec![used],
    };
    running.handle.scanned(scan).unwrap();
    let proof = Proof::Scan { backups_since: Some(node.clock) };
    let given_up = running.handle.configure(set(&[("b", Required, &l)], false), Some(proof));
    let said = given_up.as_ref().err().map(|error| format!("{error}; {}", error.hint()));
    assert!(given_up.is_ok(), "it encrypts nothing any more, and the key_id has moved already: {said:?}");
}
