//! Both providers without a network in a node's configuration: what `nodeseald` does with them, as `status` tells it.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::dev::Dev;

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
    let begun = Instant::now();
    let status = loop {
        let status = node.ask(&["status"]);
        let rows = status["providers"].as_array().cloned().unwrap_or_default();
        if rows.len() == 2 && rows.iter().all(|row| row["key"].is_string() && row["error"].is_null()) {
            break rows;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{status:#}");
        std::thread::sleep(Duration::from_millis(100));
    };
    let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
    assert_eq!((text(&status[0], "kind"), text(&status[1], "kind")), ("pkcs11".into(), "kms-plugin".into()));
    assert!(text(&status[0], "key").ends_with("/shared%20key"), "{status:?}");
    assert_eq!(text(&status[1], "key"), "the-other");
    // A new KEK gets a copy by each.
    node.ask(&["keys", "rotate"]);
    let after = node.ask(&["status"]);
    assert!(after["providers"].as_array().unwrap().iter().all(|row| row["error"].is_null()), "{after:#}");
}
