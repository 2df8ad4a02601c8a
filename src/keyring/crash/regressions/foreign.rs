//! What another plugin has made stays readable, for as long as the operator has not shown that nothing of it is left.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::*;
use crate::envelope::EnvelopeError;
use crate::keyring::crash::provider::{Provider, Silence, proved, together};
use crate::keyring::evidence::{KekUse, NoProof, Reach, Scan};
use crate::keyring::keeper::Proof;
use crate::keyring::rooted::Rooted;
use crate::keyring::{KeeperError, KeyringError};
use crate::provider::set::Role::{DecryptOnly, Required};
use crate::provider::{KeyIdentity, ProviderKind};
use crate::types::{Class, Explained};

/// The own provider, and the other plugin, which is handed what Nodeseal has not made or is not.
fn set(own: &Provider, old: Option<(&Provider, bool)>) -> Option<Arc<Rooted>> {
    let mut members = vec![("own", Required, own)];
    if let Some((old, opens)) = old {
        old.open_foreign(opens);
        members.push(("old", DecryptOnly, old));
    }
    Some(proved(together(&members, |_| {})))
}

fn start() -> (Node, Running, [Provider; 2]) {
    let [own, old] = [Provider::of("own"), Provider::of("old")];
    let node = Node::new();
    node.init().unwrap();
    let running = node.start_with(set(&own, Some((&old, true))).unwrap());
    running.first_attempt().unwrap();
    (node, running, [own, old])
}

#[test]
fn what_another_plugin_has_made_opens_and_nothing_of_ours_is_handed_on() {
    let (_node, running, [_, old]) = start();
    assert!(running.opens_foreign().unwrap());
    let mut text = running.encrypt().unwrap();
    assert!(running.decrypt(&text).unwrap());
    let asked = old.asked();
    // Changed within, and as one of another cluster.
    *text.text.last_mut().unwrap() ^= 1;
    let changed = running.decrypt(&text);
    assert!(matches!(changed, Err(KeyringError::Envelope(EnvelopeError::Authentication))), "{:?}", changed.err());
    text.text[24] ^= 1;
    let elsewhere = running.decrypt(&text);
    assert!(matches!(elsewhere, Err(KeyringError::Envelope(EnvelopeError::Elsewhere))), "{:?}", elsewhere.err());
    // Its probes come every few milliseconds, and tell its key.
    old.plan(Some((0, Silence::Away)));
    let away = running.opens_foreign().unwrap_err();
    assert_eq!(away.class(), Class::Unavailable, "after {asked} questions: {away:?}");
}

#[test]
fn whoever_opens_what_another_plugin_has_made_leaves_only_on_a_scan_or_an_order() {
    let (node, running, [own, old]) = start();
    for next in [None, Some((&old, false))] {
        let refused = running.handle.configure(set(&own, next), None).unwrap_err();
        assert!(matches!(&refused, KeeperError::OnlyForeign { provider } if provider == "old"), "{refused:?}");
        assert!(refused.hint().contains("opens_foreign = true") && refused.hint().contains("--abandon"));
        assert!(running.opens_foreign().unwrap());
    }
    // Under another name it is the same.
    let [renamed, both] = [&["older"][..], &["old", "older"]].map(|names| {
        old.open_foreign(true);
        let members = names.iter().map(|name| (*name, DecryptOnly, &old));
        let members: Vec<_> = members.chain([("own", Required, &own)]).collect();
        Some(proved(together(&members, |_| {})))
    });
    for next in [renamed, both] {
        running.handle.configure(next, None).unwrap();
        assert!(running.opens_foreign().unwrap());
    }
    drop(running);
    let running = node.start_with(set(&own, Some((&old, true))).unwrap());
    running.first_attempt().unwrap();
    // kube-apiserver was told of this key_id long ago.
    let now = running.clock.load(Ordering::SeqCst) + 3600;
    running.clock.store(now, Ordering::SeqCst);
    let kek = running.kek("active").to_string();
    let scanned = |foreign| {
        let keks = vec![KekUse { kek: kek.clone(), objects: 3 }];
        running.handle.scanned(Scan {
            at: now,
            revision: 7,
            objects: 3 + foreign,
            foreign,
            reach: Reach::Whole,
            keks,
            keys: Vec::new(),
        })
    };
    let leave = |backups_since| running.handle.configure(set(&own, None), Some(Proof::Scan { backups_since }));
    let why = |left: Result<(), KeeperError>| match left {
        Err(KeeperError::NoProofOfKey { why, .. }) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(why(leave(Some(now))), NoProof::Never);
    scanned(2).unwrap();
    assert_eq!(why(leave(Some(now))), NoProof::Needed { objects: 2 });
    scanned(0).unwrap();
    assert_eq!(why(leave(None)), NoProof::Backups);
    leave(Some(now)).unwrap();
    assert!(running.opens_foreign().is_err());
    // It is forgotten for good, and comes back by its table.
    running.handle.configure(set(&own, None), None).unwrap();
    running.handle.configure(set(&own, Some((&old, true))), None).unwrap();
    assert!(running.handle.configure(set(&own, None), None).is_err());
    running.handle.configure(set(&own, None), Some(Proof::Waived)).unwrap();
}

#[test]
fn a_start_without_whoever_opens_what_another_plugin_has_made_tells_it_until_it_is_given_up() {
    let (node, running, [own, old]) = start();
    drop(running);
    let running = node.start_with(set(&own, Some((&old, false))).unwrap());
    running.first_attempt().unwrap();
    let lost = || running.handle.overview().unwrap().roots.lost;
    running.wait_for("it is told", || lost().iter().any(|said| said.contains("old") && said.contains("not made")));
    running.handle.configure(set(&own, None), Some(Proof::Waived)).unwrap();
    running.wait_for("it is told for ever", || lost().is_empty());
}

#[test]
fn a_node_whose_providers_all_cease_to_write_is_one_of_hardware_only_that_still_opens_what_they_have_wrapped() {
    let [own, old] = [Provider::of("own"), Provider::of("old")];
    let node = Node::new();
    node.init().unwrap();
    old.open_foreign(true);
    let only_opens = || Some(proved(together(&[("old", DecryptOnly, &old)], |_| {})));
    // From the first start on nothing waits for who wraps nothing.
    let running = node.start_with(only_opens().unwrap());
    running.first_attempt().unwrap();
    let first = running.keyring.key_id_now();
    let text = running.encrypt().unwrap();
    assert_eq!(text.attached.iter().count(), 0);
    assert!(running.opens_foreign().unwrap() && running.decrypt(&text).unwrap());
    let settles = |running: &Running| running.handle.overview().unwrap().roots.waits.is_none();
    // With one that writes and back again: the key_id moves each time, and no KEK is shared between both.
    running.handle.configure(set(&own, Some((&old, true))), None).unwrap();
    running.wait_for("it is rooted", || running.keyring.key_id_now() != first && settles(&running));
    let rooted = running.encrypt().unwrap();
    assert!(rooted.attached.iter().count() > 0);
    let both = || Some(proved(together(&[("own", DecryptOnly, &own), ("old", DecryptOnly, &old)], |_| {})));
    running.handle.configure(both(), None).unwrap();
    running.wait_for("it is of hardware only", || running.encrypt().unwrap().attached.iter().count() == 0);
    running.wait_for("it settles", || settles(&running));
    let alone = running.encrypt().unwrap();
    assert!(alone.key_id != rooted.key_id && Some(&alone.key_id) != first.as_ref());
    for text in [&text, &rooted, &alone] {
        assert!(running.decrypt(text).unwrap());
    }
    drop(running);
    // Another node has nothing but the providers.
    let other = Node::new();
    other.init().unwrap();
    let running = other.start_with(both().unwrap());
    running.first_attempt().unwrap();
    assert!(running.decrypt(&rooted).unwrap());
    assert!(running.decrypt(&alone).is_err(), "no provider has wrapped it");
}

/// A server that names another key at each look fills them.
#[test]
fn where_no_more_keys_are_remembered_whoever_opens_what_another_plugin_has_made_does_not_leave_unnoticed() {
    let node = Node::new();
    node.init().unwrap();
    node.change_state(|mut state| {
        let key = |number: usize| (ProviderKind::Vault, KeyIdentity::new(number.to_string()).unwrap());
        for number in 0.. {
            if state.marks.is_full() {
                break;
            }
            state.marks.put_direct(key(number));
        }
        state
    });
    let own = Provider::of("0");
    let running = node.start_with(proved(together(&[("own", Required, &own)], |rules| rules.local_kek = false)));
    running.first_attempt().unwrap();
    let old = Provider::of("old");
    running.handle.configure(set(&own, Some((&old, true))), Some(Proof::Waived)).unwrap();
    let refused = running.handle.configure(set(&own, Some((&old, false))), None).unwrap_err();
    assert!(matches!(refused, KeeperError::OnlyForeign { .. }), "{refused:?}");
    assert!(running.opens_foreign().unwrap());
}
