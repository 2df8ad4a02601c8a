//! The operator's verbs on keys: what moves, what stays, what is refused and with which exit code.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;
use test_support::client::code;
use test_support::node::Node;
use test_support::process::{snapshot, until};

fn states(node: &Node) -> Vec<(String, String)> {
    let table = node.ask(&["keys", "list"]);
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    table["keys"].as_array().unwrap().iter().map(|row| (text(row, "id"), text(row, "state"))).collect()
}

#[test]
fn a_rotation_is_two_steps_and_only_the_second_moves_the_key_id() {
    let node = Node::start();
    let client = node.client();
    let old = client.store().unwrap();
    let old_v1 = client.encrypt_v1(b"dek").unwrap();
    let first = states(&node)[0].0.clone();

    let row = node.ask(&["keys", "rotate"])["key"].clone();
    let second = row["id"].as_str().unwrap().to_owned();
    assert_eq!(row["state"], "pre-activation");
    assert_eq!(client.status().unwrap().key_id, old.key_id, "pre-activation changes nothing");
    assert_eq!(client.store().unwrap().key_id, old.key_id);

    // A second one would be a choice without a reason.
    node.tool(&["keys", "rotate"]).assert_refused(77);
    assert_eq!(states(&node).len(), 2);

    let table = node.ask(&["keys", "activate", &second]);
    let new_id = client.status().unwrap().key_id;
    assert_ne!(new_id, old.key_id);
    assert_eq!((table["key_id"].as_str(), row["key_id"].as_str()), (Some(&*new_id), Some(&*new_id)));
    let new = client.store().unwrap();
    assert_eq!(new.key_id, new_id);
    for stored in [&old, &new] {
        client.assert_opens(stored);
    }
    assert_eq!(client.decrypt_v1(&old_v1).unwrap(), b"dek");
    assert_eq!(client.decrypt(&old.text, &new_id).unwrap_err().code(), Some(code::INVALID_ARGUMENT));
    let expected = [(second.clone(), "active".to_owned()), (first.clone(), "deactivated".to_owned())];
    assert_eq!(states(&node), expected);

    // Neither turns back.
    node.tool(&["keys", "activate", &first]).assert_refused(77);
    node.tool(&["keys", "activate", &second]).assert_refused(77);
    node.tool(&["keys", "activate", &"0".repeat(32)]).assert_refused(77);
    node.tool(&["keys", "activate", "nonsense"]).assert_refused(66);
    assert_eq!(states(&node), expected);
    assert_eq!(client.status().unwrap().key_id, new_id);
}

#[test]
fn status_and_encrypt_turn_together_while_calls_are_made() {
    let node = Node::start();
    let pending = node.ask(&["keys", "rotate"])["key"]["id"].as_str().unwrap().to_owned();
    let old = node.client().status().unwrap().key_id;
    let done = AtomicBool::new(false);
    let begun = AtomicU32::new(0);
    let seen = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let client = node.client();
                    let mut seen = Vec::new();
                    let mut after = 0;
                    while after < 50 {
                        after += u32::from(done.load(Ordering::Relaxed));
                        seen.push(client.status().unwrap().key_id);
                        let stored = client.store().unwrap();
                        client.assert_opens(&stored);
                        seen.push(stored.key_id);
                        begun.fetch_add(u32::from(seen.len() == 2), Ordering::Relaxed);
                    }
                    seen
                })
            })
            .collect();
        until(Duration::from_secs(10), "all callers call", || (begun.load(Ordering::Relaxed) == 3).then_some(()));
        node.ask(&["keys", "activate", &pending]);
        done.store(true, Ordering::Relaxed);
        callers.into_iter().map(|caller| caller.join().unwrap()).collect::<Vec<_>>()
    });
    let new = node.client().status().unwrap().key_id;
    for mut of_one in seen {
        assert!(of_one.iter().all(|key_id| *key_id == old || *key_id == new));
        of_one.dedup();
        assert_eq!(of_one, [old.clone(), new.clone()], "one turn, never back");
    }
}

#[test]
fn retiring_needs_the_id_once_more_and_destroys_for_ever() {
    let mut node = Node::start();
    let client = node.client();
    let old = client.store().unwrap();
    let old_v1 = client.encrypt_v1(b"dek").unwrap();
    let first = states(&node)[0].0.clone();
    node.tool(&["keys", "retire", &first, "--confirm", &first, "--without-scan"]).assert_refused(77);
    let second = node.rotate_and_activate();

    let before = (snapshot(&node.state()), states(&node));
    let refused = node.tool(&["keys", "retire", &first]);
    assert!(refused.assert_refused(77).err.contains("--confirm"), "{refused:?}");
    node.tool(&["keys", "retire", &first, "--confirm", &second, "--without-scan"]).assert_refused(77);
    node.tool(&["keys", "retire", &second, "--confirm", &second, "--without-scan"]).assert_refused(77);
    let unknown = "0".repeat(32);
    node.tool(&["keys", "retire", &unknown, "--confirm", &unknown, "--without-scan"]).assert_refused(77);
    // The beginning of an id is enough, but where it is said once more.
    let beginning = &first[..12];
    let shown = node.tool(&["keys", "show", beginning]);
    assert!(shown.code == 0 && shown.out.contains(&first) && shown.out.contains("deactivated"), "{shown:?}");
    let shown = node.tool(&["keys", "show", beginning, "--json"]).json();
    assert_eq!(shown["key"]["id"], first.as_str());
    node.tool(&["keys", "retire", beginning, "--confirm", beginning, "--without-scan"]).assert_refused(77);
    node.tool(&["keys", "show", "nonsense"]).assert_refused(66);
    // What would be refused is refused dry as well.
    node.tool(&["keys", "retire", &second, "--dry-run"]).assert_refused(77);
    node.tool(&["keys", "retire", &unknown, "--dry-run"]).assert_refused(77);
    node.tool(&["keys", "retire", "nonsense", "--dry-run"]).assert_refused(66);
    let dry = node.ask(&["keys", "retire", &first, "--dry-run", "--without-scan"]);
    assert_eq!((dry["dry_run"].as_bool(), dry["id"].as_str()), (Some(true), Some(&*first)));
    assert!(node.tool(&["keys", "retire", &first, "--dry-run", "--without-scan"]).out.contains("would destroy"));
    assert_eq!((snapshot(&node.state()), states(&node)), before, "nothing of all that changed anything");
    client.assert_opens(&old);

    node.ask(&["keys", "retire", &first, "--confirm", &first, "--compromised"]);
    assert_eq!(states(&node)[1].1, "compromised");
    client.assert_opens(&old);
    node.ask(&["keys", "retire", &first, "--confirm", &first, "--without-scan"]);
    assert_eq!(states(&node)[1].1, "destroyed");
    for text in [client.decrypt(&old.text, &old.key_id), client.decrypt_v1(&old_v1)] {
        assert_eq!(text.unwrap_err().code(), Some(code::NOT_FOUND));
    }
    assert!(!snapshot(&node.state()).keys().any(|name| name.contains(&first)), "no file of it is left");
    node.tool(&["keys", "retire", &first, "--confirm", &first, "--without-scan"]).assert_refused(77);
    node.tool(&["keys", "activate", &first]).assert_refused(77);

    let new = client.store().unwrap();
    node.stop();
    node.up();
    let client = node.client();
    client.assert_opens(&new);
    assert_eq!(client.decrypt(&old.text, &old.key_id).unwrap_err().code(), Some(code::NOT_FOUND));
    assert_eq!(states(&node)[1], (first, "destroyed".to_owned()), "the record stays");
}

#[test]
fn a_pending_kek_can_be_given_up() {
    let node = Node::start();
    let given_up = node.ask(&["keys", "rotate"])["key"]["id"].as_str().unwrap().to_owned();
    node.ask(&["keys", "retire", &given_up, "--confirm", &given_up, "--without-scan"]);
    let client = node.client();
    let before = client.store().unwrap();
    node.rotate_and_activate();
    client.assert_opens(&before);
    assert_ne!(client.status().unwrap().key_id, before.key_id);
}

#[test]
fn a_second_init_is_refused_with_and_without_a_running_daemon() {
    let mut node = Node::start();
    let stored = node.client().store().unwrap();
    let refused = node.tool(&["init", "--no-recovery"]);
    assert!(refused.assert_refused(77).err.contains("already set up"), "{refused:?}");
    node.stop();
    let before = snapshot(&node.state());
    // Without the sealer it is refused before anybody is asked.
    node.tool(&["init", "--no-recovery"]).assert_refused(77);
    assert_eq!(snapshot(&node.state()), before);
    // With half of the files gone, too: what is left may be all that opens etcd.
    let aside = |name: &str| (node.root().join(name), node.dir().join(format!("{name}.aside")));
    for (file, away) in ["state", "state.prev"].map(aside) {
        std::fs::rename(file, away).unwrap();
    }
    node.tool(&["init", "--no-recovery"]).assert_refused(77);
    for (file, away) in ["state", "state.prev"].map(aside) {
        std::fs::rename(away, file).unwrap();
    }
    node.up();
    node.client().assert_opens(&stored);
}

#[test]
fn reseal_keeps_keys_and_key_id() {
    let mut node = Node::start();
    let client = node.client();
    let stored = client.store().unwrap();
    let seal = || std::fs::read(node.root().join("node/root.seal")).unwrap();
    let first = seal();
    assert_eq!(node.ask(&["reseal"])["seal_policy"], "none");
    assert_ne!(seal(), first, "another blob");
    assert_eq!(client.status().unwrap().key_id, stored.key_id);
    node.stop();
    node.up();
    node.client().assert_opens(&stored);
}
