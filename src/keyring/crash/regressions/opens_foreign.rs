//! A reload, a clock and providers that all cease to write: what another plugin has made and what is given out in between stays readable.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::*;
use crate::keyring::KeyringError;
use crate::keyring::crash::device::Trouble;
use crate::keyring::crash::provider::{Provider, proved, together};
use crate::keyring::evidence::{KekUse, Reach, Scan};
use crate::keyring::keeper::{Next, Proof};
use crate::keyring::ring::RetireTo;
use crate::keyring::rooted::Rooted;
use crate::provider::set::Role::{self, DecryptOnly, Optional, Required};
use crate::provider::set::{Providers, Strategy};

fn set(members: &[(&str, Role, &Provider)], local_kek: bool) -> Option<Arc<Rooted>> {
    Some(proved(together(members, |rules| rules.local_kek = local_kek)))
}

#[test]
fn of_two_plugins_of_one_name_the_one_that_opens_what_it_has_made_does_not_leave_unnoticed() {
    // Both tables give their key the same name, and it is known that the second one has another key.
    let [own, old, other] = [Provider::of("own"), Provider::of("old"), Provider::of("old")];
    other.shut();
    old.open_foreign(true);
    other.open_foreign(true);
    let node = Node::new();
    node.init().unwrap();
    let members = [("own", Required, &own), ("old", Optional, &old), ("other", Optional, &other)];
    let running = node.start_with(set(&members, true).unwrap());
    running.first_attempt().unwrap();
    running.encrypt().unwrap();
    assert!(running.opens_foreign().unwrap());
    let is_told = || running.keyring.rooted().unwrap().providers.members()[2].is_twin();
    running.wait_for("it refuses what the key has made", is_told);
    let rooted = running.keyring.rooted().unwrap();
    let left = [0, 2].map(|place| rooted.providers.members()[place].clone()).to_vec();
    let left = Rooted::new(rooted.runtime.clone(), Providers::new(left, Strategy::Ordered), rooted.rules.clone());
    // As the proofs of a reload tell it: the second plugin has opened nothing of this key.
    let openers = HashSet::from(["own".to_owned()]);
    let done = running.handle.configure(Next { rooted: Some(Arc::new(left)), openers }, None);
    let opens: Result<bool, KeyringError> = running.opens_foreign();
    assert!(done.is_err() && opens.is_ok(), "reload: {done:?}, and what the first plugin has made: {opens:?}");
}

#[test]
fn what_is_given_out_under_a_shared_key_id_while_all_providers_cease_to_write_is_told_as_short_of_copies() {
    let k = Provider::of("k");
    let node = Node::new();
    node.init().unwrap();
    let running = node.start_with(set(&[("k", Required, &k)], false).unwrap());
    running.first_attempt().unwrap();
    let first = running.encrypt().unwrap();
    assert!(first.attached.iter().count() > 0);
    // No other KEK can be made while the device is away, so the key_id stays.
    node.device.plan(Some((0, Trouble::Away)));
    running.handle.configure(set(&[("k", DecryptOnly, &k)], false), None).unwrap();
    let between = running.encrypt().unwrap();
    let short = running.handle.overview().unwrap().roots.short_texts;
    // The operator takes it back. The key_id never moved: kube-apiserver keeps the seed, and migrates nothing.
    running.handle.configure(set(&[("k", Required, &k)], false), None).unwrap();
    let last = running.encrypt().unwrap();
    // Another node of the cluster reports the same key_id, and has the same provider.
    let other = Node::new();
    other.init().unwrap();
    let reader = other.start_with(set(&[("k", Required, &k)], false).unwrap());
    reader.first_attempt().unwrap();
    assert!(reader.decrypt(&first).unwrap() && reader.decrypt(&last).unwrap());
    let read = reader.decrypt(&between);
    assert_eq!((&between.key_id, &last.key_id), (&first.key_id, &first.key_id));
    assert!(read.is_ok() || short > 0, "the other node: {read:?}; texts short of copies: {short}");
}

#[test]
fn what_a_node_has_encrypted_before_its_first_provider_is_short_of_no_copies_in_mode_direct() {
    let k = Provider::of("k");
    let node = Node::new();
    node.init().unwrap();
    let running = node.start();
    running.first_attempt().unwrap();
    let text = running.encrypt().unwrap();
    running.handle.configure(set(&[("k", Required, &k)], false), None).unwrap();
    running.wait_for("it is direct", || running.encrypt().unwrap().attached.iter().count() > 0);
    assert_eq!(running.handle.overview().unwrap().roots.short_texts, 0);
    assert!(running.decrypt(&text).unwrap());
}

#[test]
fn a_text_of_ours_whose_head_was_changed_or_that_a_later_release_wrote_is_not_handed_to_another_plugin() {
    let [own, old] = [Provider::of("own"), Provider::of("old")];
    old.open_foreign(true);
    let node = Node::new();
    node.init().unwrap();
    let running = node.start_with(set(&[("own", Required, &own), ("old", DecryptOnly, &old)], true).unwrap());
    running.first_attempt().unwrap();
    // The number of its format, that of its API, and its end.
    for (what, change) in [
        ("format", (|text| text[3] += 1) as fn(&mut Vec<u8>)),
        ("api", |text| text[4] ^= 3),
        ("end", |text| text.truncate(40)),
    ] {
        let mut text = running.encrypt().unwrap();
        change(&mut text.text);
        let opened = running.decrypt(&text);
        assert!(opened.is_err(), "{what}: it opens to what the other plugin says, {opened:?}");
    }
}

#[test]
fn a_plugin_that_has_wrapped_nothing_and_opens_what_it_made_itself_may_get_another_socket() {
    let [own, old] = [Provider::of("own"), Provider::of("old")];
    old.open_foreign(true);
    let node = Node::new();
    node.init().unwrap();
    let both = || set(&[("own", Required, &own), ("old", DecryptOnly, &old)], true);
    let running = node.start_with(both().unwrap());
    running.first_attempt().unwrap();
    running.encrypt().unwrap();
    running.wait_for("its key is known", || {
        running.handle.overview().unwrap().roots.records.iter().any(|record| record.identity().as_str() == "old")
    });
    // What `prove` finds of it: it tells its key, and there is nothing that this has made.
    let openers = HashSet::from(["own".to_owned()]);
    let rooted = running.keyring.rooted().unwrap();
    let next = both().unwrap();
    let members = vec![rooted.providers.members()[0].clone(), next.providers.members()[1].clone()];
    let next = Rooted::new(rooted.runtime.clone(), Providers::new(members, Strategy::Ordered), rooted.rules.clone());
    let done = running.handle.configure(Next { rooted: Some(Arc::new(next)), openers }, None);
    assert!(done.is_ok(), "{done:?}");
}

#[test]
fn a_scan_from_before_a_kek_of_another_node_was_made_is_no_proof_that_nothing_needs_it() {
    let k = Provider::of("k");
    let start = || {
        let node = Node::new();
        node.init().unwrap();
        let running = node.start_with(set(&[("k", Required, &k)], true).unwrap());
        running.first_attempt().unwrap();
        running.encrypt().unwrap();
        (node, running)
    };
    let (node, running) = start();
    // This node leaves its provider first, and is done before the other one begins.
    running.handle.configure(set(&[("k", DecryptOnly, &k)], true), None).unwrap();
    running.wait_for("it is of hardware only", || running.encrypt().unwrap().attached.iter().count() == 0);
    drop(running);
    let running = node.start_with(set(&[("k", DecryptOnly, &k)], true).unwrap());
    running.first_attempt().unwrap();
    let own = running.kek("active");
    let mut now = running.clock.load(Ordering::SeqCst) + 3600;
    running.clock.store(now, Ordering::SeqCst);
    let keks = vec![KekUse { kek: own.to_string(), objects: 3 }];
    running
        .handle
        .scanned(Scan { at: now, revision: 7, objects: 3, foreign: 0, reach: Reach::Whole, keks, keys: Vec::new() })
        .unwrap();
    // An hour later another node makes a KEK, and what it writes is read here.
    now += 3600;
    running.clock.store(now, Ordering::SeqCst);
    let (_other, other) = start();
    let theirs = other.kek("active");
    let text = other.encrypt().unwrap();
    assert!(running.decrypt(&text).unwrap());
    running.wait_for("it is kept", || running.table().keys.iter().any(|row| row.id == theirs.to_string()));
    let since = Proof::Scan { backups_since: Some(now) };
    let retired = running.handle.retire(theirs, RetireTo::GoneEverywhere, since);
    let opens = running.decrypt(&text);
    assert!(retired.is_err() && opens.is_ok(), "{:?}, and then {opens:?}", retired.map(drop));
}

#[test]
fn a_scan_from_before_a_plugin_was_handed_anything_is_no_proof_that_it_is_needed_no_more() {
    let [own, old] = [Provider::of("own"), Provider::of("old")];
    let node = Node::new();
    node.init().unwrap();
    let alone = || set(&[("own", Required, &own)], true);
    drop({
        let running = node.start_with(alone().unwrap());
        running.first_attempt().unwrap();
        running.encrypt().unwrap();
        running
    });
    let running = node.start_with(alone().unwrap());
    running.first_attempt().unwrap();
    let mut now = running.clock.load(Ordering::SeqCst) + 3600;
    running.clock.store(now, Ordering::SeqCst);
    let keks = vec![KekUse { kek: running.kek("active").to_string(), objects: 3 }];
    running
        .handle
        .scanned(Scan { at: now, revision: 7, objects: 3, foreign: 0, reach: Reach::Whole, keks, keys: Vec::new() })
        .unwrap();
    // An hour later a backup of etcd is restored, which the old plugin has to open.
    now += 3600;
    running.clock.store(now, Ordering::SeqCst);
    old.open_foreign(true);
    running.handle.configure(set(&[("own", Required, &own), ("old", DecryptOnly, &old)], true), None).unwrap();
    assert!(running.opens_foreign().unwrap());
    let left = running.handle.configure(alone(), Some(Proof::Scan { backups_since: Some(now) }));
    let opens = running.opens_foreign();
    assert!(left.is_err() && opens.is_ok(), "{left:?}, and then {opens:?}");
}
