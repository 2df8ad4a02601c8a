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
    node.ask(&["reload", "--abandon"]);
    until(&node, "the other key is named", |status| status["providers"][0]["key"] == "two");
}
