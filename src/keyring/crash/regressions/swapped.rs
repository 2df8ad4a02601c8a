//! Names that were given to other providers in a restart, while nobody could be asked which key they have.

use super::*;
use crate::keyring::crash::provider::{Provider, Silence, proved, together};
use crate::provider::set::Role::{DecryptOnly, Optional, Required};

fn silence(providers: &[&Provider], silence: Option<Silence>) {
    providers.iter().for_each(|provider| provider.plan(silence.map(|silence| (0, silence))));
}

#[test]
fn names_that_were_swapped_in_a_restart_while_all_are_away_do_not_move_the_key_id() {
    let [k, l] = [Provider::of("k"), Provider::of("l")];
    let by = |a, b| together(&[("a", a, &k), ("b", b, &l)], |rules| rules.local_kek = false);
    let node = Node::new();
    node.init().unwrap();
    let running = node.start_with(proved(by(Required, DecryptOnly)));
    running.first_attempt().unwrap();
    let first = running.keyring.key_id_now().unwrap();
    let text = running.encrypt().unwrap();
    drop(running);
    silence(&[&k, &l], Some(Silence::Away));
    let swapped = together(&[("a", DecryptOnly, &l), ("b", Required, &k)], |rules| rules.local_kek = false);
    let running = node.start_with(swapped);
    let _ = running.first_attempt();
    running.wait_for("both are asked", || k.asked() > 40 && l.asked() > 40);
    assert_eq!(running.keyring.key_id_now(), Some(first.clone()), "the key_id names a key that nobody has told");
    silence(&[&k, &l], None);
    running.wait_for("it settles", || running.handle.overview().unwrap().roots.waits.is_none());
    assert_eq!(running.keyring.key_id_now(), Some(first));
    assert!(running.decrypt(&text).unwrap());
}

#[test]
fn the_one_that_is_there_moves_the_key_id_to_its_new_version_while_another_one_is_away() {
    let [k, l] = [Provider::of("k"), Provider::of("l")];
    let rooted = || together(&[("a", Required, &k), ("b", Optional, &l)], |_| {});
    let node = Node::new();
    node.init().unwrap();
    let running = node.start_with(proved(rooted()));
    running.first_attempt().unwrap();
    running.wait_for("it settles", || running.handle.overview().unwrap().roots.waits.is_none());
    let first = running.keyring.key_id_now().unwrap();
    drop(running);
    silence(&[&l], Some(Silence::Away));
    k.rotate_to(2);
    let running = node.start_with(rooted());
    running.first_attempt().unwrap();
    running.wait_for("the new version is named", || running.keyring.key_id_now().is_some_and(|now| now != first));
}
