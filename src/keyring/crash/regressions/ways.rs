//! Keys count, and not the names of providers: several ways to one key, names that were swapped, a key that goes back.

use std::sync::Arc;

use super::*;
use crate::keyring::calendar::EpochRule;
use crate::keyring::crash::provider::{Provider, Silence, proved, together};
use crate::keyring::rooted::{Rooted, Rules};
use crate::provider::set::Role::{Optional, Required};
use crate::types::KeyId;

fn set_up() -> Node {
    let node = Node::new();
    node.init().unwrap();
    node
}

/// Whatever the keeper makes of its providers, it has made by then.
fn let_it_probe(running: &Running, providers: &[&Provider]) {
    for provider in providers {
        let asked = provider.asked();
        running.wait_for("a provider is not probed", || provider.asked() > asked + 40);
    }
}

fn key_id(running: &Running) -> KeyId {
    running.keyring.key_id_now().unwrap()
}

fn assert_settled(running: &Running) {
    let roots = running.handle.overview().unwrap().roots;
    assert_eq!((roots.owed, roots.short_texts, roots.waits), (0, 0, None));
}

fn none(_: &mut Rules) {}

#[test]
fn two_ways_to_one_key_are_one_key_from_the_first_start_on() {
    let (node, provider) = (set_up(), Provider::new());
    let both = || together(&[("a", Required, &provider), ("b", Required, &provider)], none);
    let running = node.start_with(both());
    running.first_attempt().expect("the node is ready");
    let first = key_id(&running);
    let text = running.encrypt().unwrap();
    assert_eq!(text.attached.iter().filter(|(name, _)| name.contains("wrap")).count(), 1);
    let_it_probe(&running, &[&provider]);
    assert_settled(&running);
    assert_eq!(provider.wraps(), 1, "who has wrapped it is asked again and again");
    running.renew().unwrap();
    assert_eq!(key_id(&running), first);
    drop(running);
    // The same with the provider away from the start on, and as a node that has one of both alone reports it.
    provider.plan(Some((0, Silence::Away)));
    let running = node.start_with(both());
    running.first_attempt().unwrap();
    assert_eq!(key_id(&running), first);
    assert!(running.decrypt(&text).unwrap());
    assert!(running.encrypt().unwrap().attached.iter().count() > 1, "known by both names, it has its copies");
    drop(running);
    provider.plan(None);
    let other = set_up();
    let running = other.start_with(together(&[("a", Required, &provider)], none));
    running.first_attempt().unwrap();
    assert_eq!(key_id(&running), first);
}

#[test]
fn an_old_and_a_new_name_side_by_side_are_a_way_to_rename_a_provider() {
    let (node, provider) = (set_up(), Provider::new());
    let running = node.start_with(together(&[("old", Required, &provider)], none));
    running.first_attempt().unwrap();
    let (first, keks) = (key_id(&running), running.table().keys.len());
    let sets: [&[&str]; 3] = [&["old", "new"], &["new", "old"], &["new"]];
    for names in sets {
        let members: Vec<_> = names.iter().map(|name| (*name, Required, &provider)).collect();
        running.handle.configure(Some(proved(together(&members, none))), None).unwrap();
        let_it_probe(&running, &[&provider]);
        assert_settled(&running);
        assert_eq!((key_id(&running), running.table().keys.len(), provider.wraps()), (first.clone(), keks, 1));
    }
}

#[test]
fn two_ways_to_one_key_are_not_two_wraps() {
    let (node, provider) = (set_up(), Provider::new());
    let both = together(&[("a", Required, &provider), ("b", Required, &provider)], |rules| rules.min_wraps = 2);
    let running = node.start_with(both);
    assert!(running.first_attempt().is_err(), "one key is taken for two");
    let refused = running.handle.rotate().and_then(|_| running.activate(running.kek("pre-activation"), true));
    assert!(refused.is_err(), "one key is taken for two: {refused:?}");
}

#[test]
fn one_way_to_a_key_stands_in_for_the_other() {
    let (node, away) = (set_up(), Provider::new());
    let well = Provider::new();
    let both = || together(&[("a", Required, &away), ("b", Required, &well)], none);
    let running = node.start_with(both());
    running.first_attempt().unwrap();
    let first = running.kek("active");
    running.wait_for("both are known", || away.asked() > 3 && well.asked() > 3);
    away.plan(Some((0, Silence::Away)));
    running.renew().unwrap();
    assert_ne!(running.kek("active"), first);
    let_it_probe(&running, &[&away]);
    assert_settled(&running);
    assert!(running.keyring.rooted().unwrap().outage().is_zero(), "a key that answers by another way is not lost");
}

/// `a` for key `k` and `b` for key `l`, or the same with the names swapped.
fn set([k, l]: &[Provider; 2], swapped: bool) -> Arc<Rooted> {
    let (a, b) = if swapped { (l, k) } else { (k, l) };
    together(&[("a", Required, a), ("b", Required, b)], none)
}

fn two() -> (Node, [Provider; 2]) {
    (set_up(), [Provider::of("k"), Provider::of("l")])
}

#[test]
fn names_that_are_swapped_by_a_reload_change_nothing() {
    let (node, providers) = two();
    let running = node.start_with(set(&providers, false));
    running.first_attempt().unwrap();
    let (first, keks) = (key_id(&running), running.table().keys.len());
    for swapped in [true, false, true] {
        running.handle.configure(Some(proved(set(&providers, swapped))), None).unwrap();
        assert_eq!(key_id(&running), first);
        let_it_probe(&running, &providers.each_ref());
        assert_settled(&running);
        assert_eq!((key_id(&running), running.table().keys.len()), (first.clone(), keks));
    }
}

#[test]
fn names_that_were_swapped_before_a_start_change_nothing_whoever_answers_first() {
    let (node, providers) = two();
    let running = node.start_with(set(&providers, false));
    running.first_attempt().unwrap();
    let (first, keks) = (key_id(&running), running.table().keys.len());
    drop(running);
    for (late, swapped) in [(0, true), (1, false), (1, true), (0, false)] {
        for silence in Silence::ALL {
            let node = node.on(node.disk.after_kill());
            if !swapped {
                drop(node.start_with(set(&providers, true)));
            }
            providers[late].plan(Some((0, silence)));
            let running = node.start_with(set(&providers, swapped));
            running.first_attempt().unwrap();
            let_it_probe(&running, &[&providers[1 - late]]);
            assert_eq!((key_id(&running), running.table().keys.len()), (first.clone(), keks));
            providers[late].plan(None);
            let_it_probe(&running, &providers.each_ref());
            running.wait_for("it does not settle", || running.handle.overview().unwrap().roots.waits.is_none());
            assert_settled(&running);
            assert_eq!((key_id(&running), running.table().keys.len()), (first.clone(), keks));
        }
    }
}

#[test]
fn a_start_in_the_middle_of_a_swap_goes_on_with_the_same_keys() {
    let (node, providers) = two();
    let running = node.start_with(set(&providers, false));
    running.first_attempt().unwrap();
    let first = key_id(&running);
    drop(running);
    // One of both has told its key under its new name, and the node stops.
    let [k, l] = &providers;
    k.plan(Some((0, Silence::Away)));
    let running = node.start_with(set(&providers, true));
    running.first_attempt().unwrap();
    let_it_probe(&running, &[k, l]);
    drop(running);
    // Now nobody answers, and then the same one first.
    l.plan(Some((0, Silence::Away)));
    let running = node.start_with(set(&providers, true));
    running.first_attempt().unwrap();
    let_it_probe(&running, &[k, l]);
    l.plan(None);
    let_it_probe(&running, &[k, l]);
    k.plan(None);
    running.wait_for("it does not settle", || running.handle.overview().unwrap().roots.waits.is_none());
    assert_settled(&running);
    assert_eq!((key_id(&running), running.table().keys.len()), (first, 1));
}

#[test]
fn a_key_that_goes_back_while_another_is_away_costs_one_kek() {
    let (node, [k, l]) = (set_up(), [Provider::of("k"), Provider::of("l")]);
    let of_epoch = |epoch| {
        together(&[("a", Required, &k), ("b", Required, &l)], move |rules| rules.epoch = EpochRule::Number(epoch))
    };
    let running = node.start_with(of_epoch(0));
    running.first_attempt().unwrap();
    let first = key_id(&running);
    k.rotate_to(2);
    running.wait_for("the key's new version is not named", || key_id(&running) != first);
    let (second, keks) = (key_id(&running), running.table().keys.len());
    // A backup of before is restored; or only what wraps lags behind.
    for lags in [false, true] {
        let node = node.on(node.disk.after_kill());
        k.rotate_to(if lags { 2 } else { 1 });
        k.lag_at(1);
        l.plan(Some((0, Silence::Away)));
        let running = node.start_with(of_epoch(1));
        running.first_attempt().unwrap();
        running.wait_for("no KEK is made for the new key_id", || running.row("pre-activation").is_some());
        let made = running.kek("pre-activation");
        for _ in 0..5 {
            let_it_probe(&running, &[&l]);
        }
        assert_eq!((running.table().keys.len(), running.kek("pre-activation")), (keks + 1, made));
        l.plan(None);
        running.wait_for("the key_id stays", || key_id(&running) != second);
        assert_eq!(running.kek("active"), made);
    }
}

#[test]
fn an_optional_provider_that_nobody_knows_keeps_no_key_id_from_moving() {
    let (node, [k, l]) = (set_up(), [Provider::of("k"), Provider::of("l")]);
    l.plan(Some((0, Silence::Away)));
    let running = node.start_with(together(&[("a", Required, &k), ("b", Optional, &l)], none));
    running.wait_for("a node waits for a provider that it may be without", || running.keyring.key_id_now().is_some());
}

#[test]
fn what_failed_for_want_of_a_provider_is_done_when_it_is_back_and_not_after_its_pause() {
    let mut node = Node::new();
    operations::grow_rooted(&mut node);
    let running = boot(&mut node);
    let (provider, former) = (node.provider.as_ref().unwrap(), running.kek("active"));
    provider.plan(Some((0, Silence::Away)));
    running.wait_for("the provider is not probed", || provider.asked() > 0);
    // The pause after a rotation that failed is a minute, in tests too.
    running.clock.fetch_add(365 * DAY, std::sync::atomic::Ordering::SeqCst);
    running.wait_for("no rotation is begun", || running.row("pre-activation").is_some());
    let_it_probe(&running, &[provider]);
    assert_eq!(running.kek("active"), former);
    provider.plan(None);
    running.wait_for("it waits although the provider is back", || running.kek("active") != former);
}
