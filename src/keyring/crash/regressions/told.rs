//! What was told once, and what other nodes have done, of which nobody has told anything.

use std::time::Duration;

use super::*;
use crate::keyring::crash::provider::{Provider, Silence, proved, together};
use crate::provider::set::Role::Required;

#[test]
fn a_version_that_was_told_once_does_not_count_for_three_because_the_configuration_is_reloaded() {
    let k = Provider::of("k");
    let rooted = together(&[("a", Required, &k)], |rules| {
        rules.local_kek = false;
        rules.probe_every = Duration::from_secs(3600);
    });
    let node = Node::new();
    node.init().unwrap();
    let running = node.start_with(proved(rooted.clone()));
    running.first_attempt().unwrap();
    let first = running.keyring.key_id_now().unwrap();
    // One answer of a replica that is ahead, or of one that was restored; then it is away.
    k.rotate_to(2);
    drop(proved(rooted.clone()));
    k.rotate_to(1);
    k.plan(Some((0, Silence::Away)));
    // As each token that is replaced in a file brings about.
    for _ in 0..5 {
        running.handle.configure(Some(rooted.clone()), None).unwrap();
    }
    drop(running.handle.list());
    assert_eq!(k.asked(), 0, "nobody has told anything since");
    assert_eq!(running.keyring.key_id_now(), Some(first), "one sight has counted as three that agree");
}

#[test]
fn what_another_node_has_stored_under_one_key_alone_keeps_its_opener_where_two_keys_make_copies() {
    let [k, l] = [Provider::of("k"), Provider::of("l")];
    let other = Node::new();
    other.init().unwrap();
    let others = other.start_with(proved(together(&[("a", Required, &k)], |_| {})));
    others.first_attempt().unwrap();
    let text = others.encrypt().unwrap();
    // A node that came later, when there were two.
    let node = Node::new();
    node.init().unwrap();
    let running = node.start_with(proved(together(&[("a", Required, &k), ("b", Required, &l)], |_| {})));
    running.first_attempt().unwrap();
    running.wait_for("both make copies", || running.row("active").is_some_and(|row| row.wraps == 2));
    let left = running.handle.configure(Some(proved(together(&[("b", Required, &l)], |_| {}))), None);
    let is_told = running.handle.overview().unwrap().roots.lost.iter().any(|lost| lost.contains(" k,"));
    assert!(left.is_err() || is_told || running.decrypt(&text).is_ok(), "the other node's text is lost without a word");
}
