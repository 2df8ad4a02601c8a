//! Epochs that the calendar turns.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::*;
use crate::keyring::calendar::{EpochRule, Period};
use crate::keyring::crash::provider::{Provider, together};
use crate::keyring::keeper::Activation;
use crate::keyring::rooted::Rooted;
use crate::provider::set::Role::Required;
use crate::types::KeyId;

/// With a local KEK or without, as the provider says.
fn monthly(k: &Provider) -> Arc<Rooted> {
    let period = Period::parse("every 30d").unwrap();
    together(&[("a", Required, k)], |rules| {
        (rules.local_kek, rules.epoch) = (k.state().2, EpochRule::Every(period));
    })
}

fn key_id(running: &Running) -> KeyId {
    running.keyring.key_id_now().unwrap()
}

fn waits(running: &Running) -> String {
    running.handle.overview().unwrap().roots.waits.unwrap_or_default()
}

/// The keeper has looked at what is due several times over.
fn let_it_look(running: &Running, k: &Provider) {
    let asked = k.asked();
    running.wait_for("the provider is not probed", || k.asked() > asked + 40);
}

fn moves_from(running: &Running, last: &KeyId) -> KeyId {
    running.wait_for("the key_id stays", || key_id(running) != *last);
    key_id(running)
}

#[test]
fn the_calendar_turns_the_key_id_once_and_what_was_before_it_opens_and_a_clock_set_back_turns_nothing() {
    let (mut node, k) = (Node::new(), Provider::of("k"));
    node.init().unwrap();
    let began = node.clock;
    let running = node.start_with(monthly(&k));
    running.first_attempt().unwrap();
    let first = key_id(&running);
    node.ledger.take(running.encrypt().unwrap());
    let turns = running.handle.overview().unwrap().roots.epoch_turns.unwrap();
    assert!((began + 1..=began + 30 * DAY).contains(&turns), "{turns}");
    running.clock.store(turns, Ordering::SeqCst);
    let second = moves_from(&running, &first);
    assert_eq!(running.handle.overview().unwrap().roots.epoch_turns, Some(turns + 30 * DAY));
    node.ledger.take(running.encrypt().unwrap());
    node.ledger.assert_holds(&running);
    drop(running);
    // Behind the turn, but not behind the KEKs by more than is doubted; then before this release, as without a battery.
    for clock in [turns - DAY / 2, 0] {
        node.clock = clock;
        let running = node.start_with(monthly(&k));
        running.first_attempt().unwrap();
        let_it_look(&running, &k);
        assert_eq!(key_id(&running), second, "at {clock}");
        node.ledger.take(running.encrypt().unwrap());
        node.ledger.assert_holds(&running);
        assert_eq!(waits(&running).contains("clock"), clock == 0, "at {clock}");
    }
}

#[test]
fn a_new_node_without_a_clock_encrypts_and_takes_the_epoch_of_all_others_when_the_clock_is_right() {
    for k in [Provider::of("k"), Provider::of("k").directly()] {
        let [mut node, other] = [Node::new(), Node::new()];
        other.init().unwrap();
        let others = other.start_with(monthly(&k.shared()));
        others.first_attempt().unwrap();
        let right = node.clock;
        node.clock = 0;
        node.init().unwrap();
        let running = node.start_with(monthly(&k));
        running.first_attempt().unwrap();
        let first = key_id(&running);
        node.ledger.take(running.encrypt().unwrap());
        assert!(waits(&running).contains("clock"), "{}", waits(&running));
        drop(running);
        // A reboot comes back with what it had, with no clock either.
        let running = node.start_with(monthly(&k));
        running.first_attempt().unwrap();
        let_it_look(&running, &k);
        assert_eq!(key_id(&running), first);
        node.ledger.take(running.encrypt().unwrap());
        node.ledger.assert_holds(&running);
        running.clock.store(right, Ordering::SeqCst);
        assert_eq!(moves_from(&running, &first), key_id(&others));
        node.ledger.take(running.encrypt().unwrap());
        node.ledger.assert_holds(&running);
        running.wait_for("it settles", || waits(&running).is_empty());
    }
}

#[test]
fn an_epoch_of_a_clock_that_ran_far_ahead_is_left_for_one_that_was_never_in_use() {
    for k in [Provider::of("k"), Provider::of("k").directly()] {
        let mut node = Node::new();
        node.init().unwrap();
        let right = node.clock;
        let running = node.start_with(monthly(&k));
        running.first_attempt().unwrap();
        let first = key_id(&running);
        node.ledger.take(running.encrypt().unwrap());
        let turns = running.handle.overview().unwrap().roots.epoch_turns.unwrap();
        running.clock.store(right + 3650 * DAY, Ordering::SeqCst);
        let ahead = moves_from(&running, &first);
        node.ledger.take(running.encrypt().unwrap());
        running.clock.store(right, Ordering::SeqCst);
        let_it_look(&running, &k);
        assert_eq!(key_id(&running), ahead, "what was in use before comes back");
        let is_in_doubt = waits(&running).contains("clock");
        assert!(is_in_doubt || !k.state().2, "{}", waits(&running));
        if is_in_doubt {
            // The KEK is from the future. So it may be in mode "direct" as well, where age alone replaces it.
            let kek = running.handle.rotate().unwrap().id.parse().unwrap();
            running.handle.activate(Activation { id: Some(kek), ..Activation::default() }).unwrap();
        }
        running.wait_for("nothing says why", || waits(&running).contains("next turn"));
        node.ledger.take(running.encrypt().unwrap());
        running.clock.store(turns, Ordering::SeqCst);
        let next = moves_from(&running, &ahead);
        assert!(![&first, &ahead].contains(&&next));
        assert_eq!(running.handle.overview().unwrap().roots.epoch_turns, Some(turns + 30 * DAY));
        node.ledger.take(running.encrypt().unwrap());
        node.ledger.assert_holds(&running);
        drop(running);
        let running = boot_with(&mut node, &k);
        assert_eq!(key_id(&running), next);
        node.ledger.assert_holds(&running);
    }
}

fn boot_with(node: &mut Node, k: &Provider) -> Running {
    let running = node.start_with(monthly(k));
    running.first_attempt().unwrap();
    running
}
