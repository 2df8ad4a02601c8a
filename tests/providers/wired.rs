//! Both providers without a network in a node's configuration: what `nodeseald` does with them, as `status` tells it.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::dev::Dev;

fn until(node: &Dev, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let status = node.ask(&["status"]);
        if is(&status) {
            return status;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}: {status:#}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_node_wraps_its_keks_by_a_shared_token_and_another_plugin() {
    let plugin = Dev::start("tpm2");
    let node = Dev::start_with(
        "pkcs11",
        &format!(
            "[[provider]]\nname = \"hsm\"\nkind = \"pkcs11\"\nkey_label = \"shared key\"\nmake_key = true\nrequired = false\n\
             [[provider]]\nname = \"other\"\nkind = \"kms-plugin\"\nkey = \"the-other\"\nrequired = false\nsocket = {:?}\n",
            plugin.path("kms.sock")
        ),
    );
    let status = until(&node, "both have told their keys", |status| {
        let rows = status["providers"].as_array().cloned().unwrap_or_default();
        rows.len() == 2 && rows.iter().all(|row| row["key"].is_string() && row["error"].is_null())
    });
    let status = status["providers"].as_array().unwrap();
    let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
    assert_eq!((text(&status[0], "kind"), text(&status[1], "kind")), ("pkcs11".into(), "kms-plugin".into()));
    assert!(text(&status[0], "key").ends_with("/shared%20key"), "{status:?}");
    assert_eq!(text(&status[1], "key"), "the-other");
    // A new KEK gets a copy by each.
    node.ask(&["keys", "rotate"]);
    let after = node.ask(&["status"]);
    assert!(after["providers"].as_array().unwrap().iter().all(|row| row["error"].is_null()), "{after:#}");
}

#[test]
fn two_ways_to_one_key_are_one_key_to_a_node() {
    let plugin = Dev::start("tpm2");
    let way = |name: &str| {
        let socket = plugin.path("kms.sock");
        format!("[[provider]]\nname = \"{name}\"\nkind = \"kms-plugin\"\nkey = \"the-other\"\nsocket = {socket:?}\n")
    };
    let node = Dev::start_with("tpm2", &(way("old") + &way("new")));
    let status = until(&node, "it settles", |status| {
        status["key_id"].is_string() && status["waits"].is_null() && status["wraps_owed"] == 0
    });
    assert!(status["providers"].as_array().unwrap().iter().all(|row| row["key"] == "the-other"), "{status:#}");
    node.ask(&["keys", "rotate"]);
    node.ask(&["keys", "activate"]);
    let keys = node.ask(&["keys", "list"]);
    let active = keys["keys"].as_array().unwrap().iter().find(|row| row["state"] == "active").unwrap();
    assert_eq!(active["wraps"], 1, "{keys:#}");
    assert_eq!(keys["key_id"], status["key_id"]);
}

#[test]
fn a_reload_does_not_let_go_of_the_key_of_mode_direct_unless_told() {
    let plugin = Dev::start("tpm2");
    let table = |key: &str, more: &str| {
        let socket = plugin.path("kms.sock");
        format!("[[provider]]\nname = \"a\"\nkind = \"kms-plugin\"\nkey = {key:?}\nsocket = {socket:?}\n{more}")
    };
    let node = Dev::start_with(
        "tpm2",
        &(table("one", "")
            + "[local_kek]\nenabled = false\n[write]\nactivation_delay = \"0s\"\nprobe_every = \"1s\"\n"),
    );
    let file = node.path("nodeseal.toml");
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(written.contains("\"one\""), "{written}");
    std::fs::write(&file, written.replace("\"one\"", "\"two\"")).unwrap();
    let refused = node.tool(&["reload"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(77) && said.contains("--abandon"), "{refused:?}");
    assert_eq!(node.ask(&["status"])["providers"][0]["key"], "one");
    node.ask(&["reload", "--abandon", "--without-scan"]);
    until(&node, "the other key is named", |status| status["providers"][0]["key"] == "two");
}

/// Changes the running node's file.
fn rewrite(node: &Dev, change: impl FnOnce(&mut Vec<toml::Value>)) {
    let path = node.path("nodeseal.toml");
    let mut file: toml::Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
    change(file["provider"].as_array_mut().unwrap());
    std::fs::write(path, file.to_string()).unwrap();
}

fn a_token_and_a_plugin(plugin: &Dev) -> Dev {
    let node = Dev::start_with(
        "pkcs11",
        &format!(
            "[write]\nactivation_delay = \"0s\"\nprobe_every = \"1s\"\n\
             [[provider]]\nname = \"hsm\"\nkind = \"pkcs11\"\nkey_label = \"shared key\"\nmake_key = true\n\
             [[provider]]\nname = \"other\"\nkind = \"kms-plugin\"\nkey = \"the-other\"\nsocket = {:?}\n",
            plugin.path("kms.sock")
        ),
    );
    until(&node, "both have a copy", |status| {
        status["key_id"].is_string() && status["waits"].is_null() && status["wraps_owed"] == 0
    });
    node
}

#[test]
fn names_that_are_swapped_between_kinds_change_no_key_and_make_no_wrap() {
    let plugin = Dev::start("tpm2");
    let node = a_token_and_a_plugin(&plugin);
    let (keys, status) = (node.ask(&["keys", "list"]), node.ask(&["status"]));
    rewrite(&node, |tables| {
        for (table, name) in tables.iter_mut().zip(["other", "hsm"]) {
            table.as_table_mut().unwrap().insert("name".into(), name.into());
        }
    });
    node.ask(&["reload"]);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        let now = node.ask(&["status"]);
        assert_eq!((&now["key_id"], &now["wraps_owed"]), (&status["key_id"], &0.into()), "{now:#}");
        std::thread::sleep(Duration::from_millis(200));
    }
    let now = node.ask(&["status"]);
    let row = |at: usize, field: &str| now["providers"][at][field].as_str().unwrap().to_owned();
    assert_eq!((row(0, "name"), row(0, "kind")), ("other".into(), "pkcs11".into()));
    assert_eq!((row(1, "name"), row(1, "kind")), ("hsm".into(), "kms-plugin".into()));
    assert_eq!(node.ask(&["keys", "list"]), keys);
}

#[test]
fn a_token_or_a_plugin_that_is_away_can_be_eased_and_left_to_decrypt_only() {
    let plugin = Dev::start("tpm2");
    let node = a_token_and_a_plugin(&plugin);
    // The token's shared key is put aside with all of the token's objects, and the plugin ends.
    let tokens = node.path("token/tokens");
    std::fs::rename(&tokens, node.path("token/aside")).unwrap();
    node.kill_sealer();
    drop(plugin);
    let rows = |status: &Value| status["providers"].as_array().cloned().unwrap_or_default();
    let any = || serde_json::from_slice::<Value>(&node.tool(&["status"]).stdout).unwrap();
    let begun = Instant::now();
    while !rows(&any()).iter().all(|row| row["error"].is_string()) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:#}", any());
        std::thread::sleep(Duration::from_millis(100));
    }
    for (place, role, key, value) in
        [(0, "optional", "required", false), (1, "optional", "required", false), (1, "decrypt-only", "write", false)]
    {
        rewrite(&node, |tables| drop(tables[place].as_table_mut().unwrap().insert(key.into(), value.into())));
        node.ask(&["reload"]);
        assert_eq!(rows(&any())[place]["role"], role);
    }
    // One has to write.
    rewrite(&node, |tables| {
        for (table, writes) in tables.iter_mut().zip([false, true]) {
            table.as_table_mut().unwrap().insert("write".into(), writes.into());
        }
    });
    node.ask(&["reload"]);
    assert_eq!(rows(&any())[0]["role"], "decrypt-only");
}
