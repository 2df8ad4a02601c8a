//! What must have an opener is remembered: a key does not leave unnoticed because of a restart, another mode, or the end of a KEK in
//! between.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::*;
use crate::keyring::KeeperError;
use crate::keyring::crash::provider::{Provider, Silence, proved, together};
use crate::keyring::evidence::{KekUse, NoProof, Reach, Scan};
use crate::keyring::keeper::Proof;
use crate::keyring::live::{Active, Snapshot};
use crate::keyring::recovery::Identity;
use crate::keyring::ring::RetireTo;
use crate::keyring::rooted::Rooted;
use crate::provider::set::Role::{self, DecryptOnly, Optional, Required};
use crate::provider::set::{Providers, Strategy};

type Members<'a> = &'a [(&'a str, Role, &'a Provider)];

fn by(members: Members<'_>, local_kek: bool) -> Arc<Rooted> {
    together(members, |rules| rules.local_kek = local_kek)
}

fn start(members: Members<'_>, local_kek: bool) -> (Node, Running) {
    let node = Node::new();
    node.init().unwrap();
    let running = node.start_with(proved(by(members, local_kek)));
    running.first_attempt().unwrap();
    (node, running)
}

#[test]
fn what_was_stored_in_mode_direct_keeps_its_opener_also_after_the_mode_was_left() {
    let [k, l] = [Provider::of("k"), Provider::of("l")];
    let (_node, running) = start(&[("a", Required, &k)], false);
    let text = running.encrypt().unwrap();
    // The way from "direct" to "rooted" with another key.
    running.handle.configure(Some(proved(by(&[("a", Required, &k), ("b", Required, &l)], true))), None).unwrap();
    running.wait_for("it settles", || running.handle.overview().unwrap().roots.waits.is_none());
    assert!(running.encrypt().is_ok() && running.decrypt(&text).unwrap());
    let left = running.handle.configure(Some(proved(by(&[("b", Required, &l)], true))), None);
    assert!(left.is_err() && running.decrypt(&text).unwrap(), "the text of mode direct has no opener any more");
}

#[test]
fn a_provider_that_was_renamed_in_a_restart_while_it_was_away_does_not_leave_unnoticed() {
    for local_kek in [false, true] {
        let [k, l] = [Provider::of("k"), Provider::of("l")];
        let (node, running) = start(&[("a", Required, &k)], local_kek);
        running.encrypt().unwrap();
        drop(running);
        k.plan(Some((0, Silence::Away)));
        let running = node.start_with(by(&[("renamed", Required, &k)], local_kek));
        let _ = running.first_attempt();
        let left = running.handle.configure(Some(proved(by(&[("b", Required, &l)], local_kek))), None);
        assert!(left.is_err(), "local_kek {local_kek}: what is stored has no opener any more");
    }
}

#[test]
fn a_kek_that_was_destroyed_here_says_nothing_of_what_other_nodes_have_stored() {
    let [k, l] = [Provider::of("k"), Provider::of("l")];
    let (_other, other) = start(&[("a", Required, &k)], true);
    let text = other.encrypt().unwrap();
    let (_node, running) = start(&[("a", DecryptOnly, &k), ("b", Required, &l)], true);
    running.encrypt().unwrap();
    // The key_id has to move, or the KEK could not be destroyed.
    l.rotate_to(2);
    running.wait_for("another KEK", || running.row("deactivated").is_some());
    let former = running.table().keys.into_iter().filter(|row| row.state == "deactivated");
    for row in former {
        running.handle.retire(row.id.parse().unwrap(), RetireTo::Destroyed, Proof::Waived).unwrap();
    }
    let left = running.handle.configure(Some(proved(by(&[("b", Required, &l)], true))), None);
    assert!(left.is_err() && running.decrypt(&text).unwrap(), "the texts of the other node have no opener any more");
}

#[test]
fn a_key_of_mode_direct_is_remembered_over_restarts_in_another_mode() {
    let [k, l] = [Provider::of("k"), Provider::of("l")];
    let (node, running) = start(&[("a", Required, &k)], false);
    let text = running.encrypt().unwrap();
    drop(running);
    let running = node.start_with(proved(by(&[("a", Required, &k), ("b", Required, &l)], true)));
    running.first_attempt().unwrap();
    running.wait_for("it settles", || running.handle.overview().unwrap().roots.waits.is_none());
    running.encrypt().unwrap();
    drop(running);
    let running = node.start_with(proved(by(&[("a", DecryptOnly, &k), ("b", Required, &l)], true)));
    running.first_attempt().unwrap();
    let left = running.handle.configure(Some(proved(by(&[("b", Required, &l)], true))), None);
    assert!(left.is_err() && running.decrypt(&text).unwrap(), "the text of mode direct has no opener any more");
}

#[test]
fn a_start_without_a_key_tells_of_it_until_a_provider_has_it_or_it_is_given_up() {
    let [k, l] = [Provider::of("k"), Provider::of("l")];
    let (node, running) = start(&[("a", Required, &k)], false);
    let text = running.encrypt().unwrap();
    let lost = |running: &Running| running.handle.overview().unwrap().roots.lost;
    assert_eq!(lost(&running), [""; 0]);
    drop(running);
    let alone = || Some(proved(by(&[("a", Required, &l)], false)));
    let both = || Some(proved(by(&[("a", Required, &l), ("b", DecryptOnly, &k)], false)));
    let running = node.start_with(proved(by(&[("a", Required, &l)], false)));
    running.first_attempt().unwrap();
    running.wait_for("it is told", || lost(&running).iter().any(|said| said.contains("vault key k,")));
    assert!(running.decrypt(&text).is_err());
    // It is no reason against other changes, and they are none to forget it.
    running.handle.configure(alone(), None).unwrap();
    assert_eq!(lost(&running).len(), 1);
    running.handle.configure(both(), None).unwrap();
    assert!(lost(&running).is_empty() && running.decrypt(&text).unwrap());
    assert!(running.handle.configure(alone(), None).is_err());
    running.handle.configure(alone(), Some(Proof::Waived)).unwrap();
    assert_eq!(lost(&running), [""; 0]);
    // Put back after all: then something needs it.
    running.handle.configure(both(), None).unwrap();
    assert!(running.decrypt(&text).unwrap());
    assert!(running.handle.configure(alone(), None).is_err());
}

#[test]
fn a_provider_of_which_nothing_is_known_hides_no_key_that_leaves() {
    let [k, l, m] = [Provider::of("k"), Provider::of("l"), Provider::of("m")];
    let (node, running) = start(&[("a", Required, &k)], false);
    let text = running.encrypt().unwrap();
    drop(running);
    m.plan(Some((0, Silence::Away)));
    let unknown = by(&[("a", Required, &k), ("c", DecryptOnly, &m)], false);
    let running = node.start_with(Arc::clone(&unknown));
    running.first_attempt().unwrap();
    assert!(running.decrypt(&text).unwrap());
    // It goes on as it is, beside another provider or none.
    let stays = unknown.providers.members().iter().find(|member| member.name() == "c").unwrap();
    let next = |members: Members<'_>| {
        let fresh = proved(by(members, false));
        let all = fresh.providers.members().iter().chain([stays]).cloned().collect();
        Some(Arc::new(Rooted::new(fresh.runtime.clone(), Providers::new(all, Strategy::Ordered), fresh.rules.clone())))
    };
    assert!(running.handle.configure(next(&[("b", Required, &l)]), None).is_err());
    running.handle.configure(next(&[("a", Required, &k), ("b", Required, &l)]), None).unwrap();
}

#[test]
fn a_text_with_a_kek_of_its_own_keeps_its_opener_in_mode_rooted_too() {
    let [k, l] = [Provider::of("k"), Provider::of("l")];
    let (_node, running) = start(&[("a", Optional, &k), ("b", Optional, &l)], true);
    running.wait_for("both make copies", || running.row("active").is_some_and(|row| row.wraps == 2));
    // As while the active KEK does not open.
    let active = Some(Arc::new(Active::direct(running.keyring.key_id_now().unwrap())));
    let (by_id, destroyed) = (HashMap::new(), HashSet::new());
    l.plan(Some((0, Silence::Away)));
    running.keyring.publish(Snapshot { active, awaits_bundle: false, by_id, destroyed });
    let text = running.encrypt().unwrap();
    l.plan(None);
    let left = running.handle.configure(Some(proved(by(&[("b", Required, &l)], true))), None);
    assert!(left.is_err() && running.decrypt(&text).unwrap(), "the text has no opener any more");
}

#[test]
fn a_recovered_node_lets_no_key_go_of_which_it_does_not_know_what_it_has_done() {
    let [k, l] = [Provider::of("k"), Provider::of("l")];
    let mut node = Node { identity: Some(Arc::new(Identity::generate())), ..Node::new() };
    node.init().unwrap();
    let running = node.start_with(proved(by(&[("a", Required, &k)], false)));
    running.first_attempt().unwrap();
    let text = running.encrypt().unwrap();
    running.handle.configure(Some(proved(by(&[("a", Required, &k), ("b", Required, &l)], true))), None).unwrap();
    running.wait_for("it settles", || running.handle.overview().unwrap().roots.waits.is_none());
    drop(running);
    node.keep_recovery_file();
    let recovered = Node { export: Arc::clone(&node.export), ..Node::new() };
    recovered.recover().unwrap();
    let running = recovered.start_with(proved(by(&[("a", Required, &k), ("b", Required, &l)], true)));
    running.first_attempt().unwrap();
    running.wait_for("it settles", || running.handle.overview().unwrap().roots.waits.is_none());
    let left = running.handle.configure(Some(proved(by(&[("b", Required, &l)], true))), None);
    assert!(left.is_err() && running.decrypt(&text).unwrap(), "the text of mode direct has no opener any more");
}

/// These that run already, and beside them a new one that has proved itself.
fn staying(running: &Rooted, names: &[&str], fresh: Members<'_>) -> Option<Arc<Rooted>> {
    let fresh = proved(by(fresh, true));
    let stay = running.providers.members().iter().filter(|member| names.contains(&member.name()));
    let all = fresh.providers.members().iter().chain(stay).cloned().collect();
    Some(Arc::new(Rooted::new(fresh.runtime.clone(), Providers::new(all, Strategy::Ordered), fresh.rules.clone())))
}

#[test]
fn of_several_providers_that_nobody_has_heard_none_leaves() {
    let [k, l, m] = [Provider::of("k"), Provider::of("l"), Provider::of("m")];
    let (node, running) = start(&[("a", Required, &k)], false);
    running.encrypt().unwrap();
    running.handle.configure(Some(proved(by(&[("a", Required, &k), ("b", Required, &l)], true))), None).unwrap();
    running.wait_for("it settles", || running.handle.overview().unwrap().roots.waits.is_none());
    drop(running);
    [&k, &l].iter().for_each(|provider| provider.plan(Some((0, Silence::Away))));
    // Nothing is known of either name; or each stands for the other key.
    for names in [["x", "y"], ["b", "a"]] {
        let swapped = by(&[(names[0], Required, &k), (names[1], Required, &l)], true);
        let running = node.start_with(Arc::clone(&swapped));
        let _ = running.first_attempt();
        let left = running.handle.configure(staying(&swapped, &names[1..], &[("c", DecryptOnly, &m)]), None);
        assert!(left.is_err(), "{names:?}: the texts of mode direct have no opener any more");
        running.handle.configure(staying(&swapped, &names, &[("c", DecryptOnly, &m)]), None).unwrap();
    }
}

#[test]
fn an_order_to_do_without_one_key_gives_up_no_other_one_whose_provider_has_only_not_answered_yet() {
    let [k, l, m] = [Provider::of("k"), Provider::of("l"), Provider::of("m")];
    let (node, running) = start(&[("a", Required, &k)], false);
    let text = running.encrypt().unwrap();
    running.handle.configure(Some(proved(by(&[("a", Required, &k), ("b", Required, &l)], false))), None).unwrap();
    running.encrypt().unwrap();
    drop(running);
    // Under another name since the restart, and away: nobody knows which key it has.
    k.plan(Some((0, Silence::Away)));
    let rooted = by(&[("x", Required, &k), ("b", Required, &l)], false);
    let running = node.start_with(Arc::clone(&rooted));
    let _ = running.first_attempt();
    // The operator does without `b`, and says so.
    let without_b = staying(&rooted, &["x"], &[("c", Required, &m)]);
    running.handle.configure(without_b.clone(), Some(Proof::Waived)).unwrap();
    let left = running.handle.configure(staying(&without_b.unwrap(), &["c"], &[]), None);
    k.plan(None);
    assert!(left.is_err(), "the last way to another key has left without an order: {:?}", running.decrypt(&text).err());
}

/// kube-apiserver keeps its seed, and what a migration finds under the same key_id it leaves as it is.
#[test]
fn a_kek_that_served_under_the_key_id_that_is_reported_is_not_destroyed_before_that_has_moved() {
    let k = Provider::of("k");
    let (node, running) = start(&[("a", Required, &k)], true);
    running.encrypt().unwrap();
    let served = running.kek("active");
    running.renew().unwrap();
    running.encrypt().unwrap();
    let second = running.kek("active");
    running.renew().unwrap();
    let refused = |running: &Running, kek| running.handle.retire(kek, RetireTo::Destroyed, Proof::Waived);
    for kek in [served, second] {
        assert!(matches!(refused(&running, kek), Err(KeeperError::UnderKeyId(named)) if named == kek));
        assert!(running.table().keys.iter().any(|row| row.id == kek.to_string() && row.under_key_id));
    }
    // Over a restart, too.
    drop(running);
    let running = node.start_with(proved(by(&[("a", Required, &k)], true)));
    running.first_attempt().unwrap();
    assert!(refused(&running, served).is_err());
    k.rotate_to(2);
    running.wait_for("the key_id has moved", || running.table().keys.iter().all(|row| !row.under_key_id));
    running.handle.retire(served, RetireTo::Destroyed, Proof::Waived).unwrap();
    running.handle.retire(second, RetireTo::Destroyed, Proof::Waived).unwrap();
}

/// The key_id moves without another local KEK when the mode is "direct" by then, and kube-apiserver leaves its seed only after that.
#[test]
fn a_scan_of_before_the_key_id_has_moved_does_not_speak_for_a_kek_that_served_under_the_one_before() {
    let k = Provider::of("k");
    let (_node, running) = start(&[("a", Required, &k)], true);
    // The seed of kube-apiserver, which it keeps for as long as the key_id is the same.
    let seed = running.encrypt().unwrap();
    let served = running.kek("active");
    running.renew().unwrap();
    running.encrypt().unwrap();
    let hour_later = running.clock.load(Ordering::SeqCst) + 3600;
    running.clock.store(hour_later, Ordering::SeqCst);
    let keks = vec![KekUse { kek: running.kek("active").to_string(), objects: 3 }];
    running
        .handle
        .scanned(Scan {
            at: hour_later,
            revision: 7,
            objects: 3,
            foreign: 0,
            reach: Reach::Whole,
            keks,
            keys: Vec::new(),
        })
        .unwrap();
    running.handle.configure(Some(proved(by(&[("a", Required, &k)], false))), None).unwrap();
    k.rotate_to(2);
    running.wait_for("the key_id has moved", || running.table().keys.iter().all(|row| !row.under_key_id));
    // kube-apiserver asks for the key_id once a minute, and writes under its seed until then.
    let now = hour_later + 5;
    running.clock.store(now, Ordering::SeqCst);
    let retired = running.handle.retire(served, RetireTo::Destroyed, Proof::Scan { backups_since: Some(now) });
    assert!(matches!(retired, Err(KeeperError::NoProof { why: NoProof::Early, .. })), "{:?}", retired.map(drop));
    assert!(running.decrypt(&seed).unwrap());
}

/// The other node reports the same key_id, and its kube-apiserver may still have its seed under a KEK that it has left.
#[test]
fn a_kek_that_came_with_a_bundle_and_may_have_served_under_the_key_id_there_is_not_destroyed_here_before_that_has_moved()
 {
    let k = Provider::of("k");
    let mut node = Node::new();
    operations::be_given(&mut node);
    let running = node.start_with(proved(by(&[("a", Required, &k)], true)));
    running.first_attempt().unwrap();
    running.wait_for("it settles", || running.handle.overview().unwrap().roots.waits.is_none());
    operations::accept(&node, &running).unwrap();
    running.wait_for("it settles", || running.handle.overview().unwrap().roots.waits.is_none());
    let left_there = crate::types::KekId::from_bytes([3; 16]);
    let refused = running.handle.retire(left_there, RetireTo::Destroyed, Proof::Waived);
    assert!(refused.is_err(), "what the other node writes from now on does not open here");
}
