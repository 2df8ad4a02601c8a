//! The key_id over rotations, deletions and outages.

use std::collections::BTreeSet;

use test_support::process::StopOnDrop;

use super::*;

#[test]
fn a_rotation_at_the_provider_moves_the_key_id_once_and_encrypt_and_status_always_agree() {
    let vault = Mine::new();
    let node = start(&[("vault", &vault, "")], FAST);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let client = node.client();
    let before = client.status().unwrap().key_id;
    let (seen, texts) = std::thread::scope(|scope| {
        let stopped = StopOnDrop(&stop);
        let watcher = scope.spawn(|| {
            let (client, mut seen, mut texts) = (node.client(), Vec::new(), Vec::new());
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let old = client.status().unwrap().key_id;
                let made = Text::new(&client);
                let (text, new) = (made.stored.key_id.clone(), client.status().unwrap().key_id);
                assert!(text == old || text == new, "Encrypt said {text} between {old} and {new}");
                seen.extend([old, text, new]);
                texts.push(made);
            }
            (seen, texts)
        });
        vault.rotate();
        until_status(&node, "the key_id moves", |status| status["key_id"] != json!(before));
        std::thread::sleep(Duration::from_secs(3));
        drop(stopped);
        watcher.join().unwrap()
    });
    let mut moves = seen.clone();
    moves.dedup();
    assert_eq!(moves.len(), 2, "it moved once");
    texts.iter().step_by(texts.len() / 20 + 1).for_each(|text| text.assert_opens(&client));
    assert_eq!(status(&node)["providers"][0]["version"], "2");
}

#[test]
fn a_key_made_anew_under_its_name_has_another_key_id_and_what_is_sealed_here_still_opens() {
    let vault = Mine::new();
    let node = start(&[("vault", &vault, "")], FAST);
    let client = node.client();
    let mut key_ids = BTreeSet::new();
    let mut texts = Vec::new();
    for _ in 0..3 {
        let text = Text::new(&client);
        let key_id = text.stored.key_id.clone();
        assert!(key_ids.insert(key_id.clone()), "a key_id came back");
        texts.push(text);
        vault.delete_and_recreate();
        until_status(&node, "the key_id moves", |status| status["key_id"] != json!(key_id));
    }
    texts.iter().for_each(|text| text.assert_opens(&client));
}

#[test]
fn a_set_of_keys_that_was_left_is_reported_again_only_in_another_epoch() {
    let (a, b) = (Mine::new(), Mine::new());
    let node = start(&[("a", &a, "")], &with_room_for(&[&b], FAST));
    let client = node.client();
    let alone = Text::new(&client);
    seal(&node.config(), "b-login", &b.login());
    let set = |node: &Node, providers: &[(&str, &Mine, &str)], epoch: i64| {
        rewrite(node, |file| {
            file.insert("provider".into(), tables(providers));
            file["write"].as_table_mut().unwrap().insert("epoch".into(), epoch.into());
        });
        node.ask(&["reload"]);
    };
    set(&node, &[("a", &a, ""), ("b", &b, "")], 0);
    let moved = until_status(&node, "b is named", |status| status["key_id"] != json!(alone.stored.key_id));
    set(&node, &[("a", &a, "")], 0);
    let status = until_status(&node, "the old set is refused", |status| status["waits"].is_string());
    assert!(status["waits"].as_str().unwrap().contains("write.epoch"), "{status}");
    assert_eq!(status["key_id"], moved["key_id"]);
    assert!(node.log().contains("epoch.refused"));
    set(&node, &[("a", &a, "")], 1);
    let status = until_status(&node, "the epoch is named", |status| status["waits"].is_null());
    assert!(status["key_id"] != moved["key_id"] && status["key_id"] != json!(alone.stored.key_id));
    alone.assert_opens(&client);
}

#[test]
fn a_kek_that_an_older_version_has_wrapped_is_not_the_one_that_a_rotation_turns_to() {
    let vault = Mine::new();
    let node = start(&[("vault", &vault, "")], FAST);
    let before = status(&node)["key_id"].clone();
    let pending = node.ask(&["keys", "rotate"])["key"]["id"].as_str().unwrap().to_owned();
    vault.rotate();
    until_status(&node, "the key_id moves", |status| status["key_id"] != before);
    let keys = node.ask(&["keys", "list"]);
    let active = keys["keys"].as_array().unwrap().iter().find(|row| row["state"] == "active").unwrap();
    assert_ne!(active["id"], json!(pending));
    assert_eq!(active["wraps"], 1);
}
