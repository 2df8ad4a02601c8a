//! Who reaches the control socket alone carries no key away, and brings none of his own.

use std::fs;

use serde_json::{Value, json};

use crate::alone::Alone;
use crate::control::answer_to;
use nodeseal::types::hex;
use test_support::swtpm::Swtpm;

const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

fn node() -> (Swtpm, Alone) {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    alone.start();
    (tpm, alone)
}

#[test]
fn by_the_control_socket_alone_no_key_is_given_away_and_by_an_operator_on_the_node_it_is() {
    let ((_first_tpm, first), (_second_tpm, second)) = (node(), node());
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let make = |args: &[&str]| second.tool(args).json()["fingerprint"].as_str().unwrap().to_owned();
    let request = make(&["bundle", "request", "--json", "--out", &path("request")]);
    let identity = make(&["members", "identity", "--json", "--name", "cp-2", "--out", &path("identity")]);
    let bytes = |name: &str| hex::encode(fs::read(path(name)).unwrap());
    let verbs = [
        json!({ "verb": "bundle-make", "request": bytes("request"), "fingerprint": request }),
        json!({ "verb": "members-add", "identity": bytes("identity"), "fingerprint": identity }),
        json!({ "verb": "bundle-accept", "bundle": "00", "fingerprint": request }),
        json!({ "verb": "reseal", "to": null, "recipients": [RECIPIENT] }),
    ];
    let (control, state) = (first.home().join("run/control.sock"), first.state());
    let refuse_all = || {
        for verb in &verbs {
            let answer = answer_to(&control, format!("{verb}\n").as_bytes());
            let error = answer["refused"]["error"].as_str().unwrap_or_else(|| panic!("{verb}: {answer}"));
            assert!(answer["refused"]["class"] == "denied" && error.contains("control socket alone"), "{answer}");
        }
    };
    refuse_all();
    let keys = first.tool(&["keys", "list", "--json"]).json();
    assert_eq!(keys["keys"][0]["shared"], Value::Bool(false), "{keys}");
    assert!(!state.join("recovery.age").exists());
    // One word for one recipient: what is said for the one is nothing to the next.
    let bundle = path("bundle");
    for args in [
        &["bundle", "make", &path("request"), "--fingerprint", &request, "--out", &bundle][..],
        &["members", "add", &path("identity"), "--fingerprint", &identity],
        &["reseal", "--recovery-recipient", RECIPIENT],
    ] {
        let done = first.tool(args);
        assert_eq!(done.code, 0, "{args:?}: {done:?}");
    }
    assert!(fs::read(&bundle).unwrap().len() > 100 && state.join("recovery.age").exists());
    let left: Vec<_> = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("consent")), "{left:?}");
    refuse_all();
}

#[test]
fn where_the_state_directory_was_changed_and_not_restarted_the_refusal_names_the_one_that_is_looked_into() {
    let (_tpm, node) = node();
    let new = tempfile::tempdir().unwrap();
    let file = fs::read_to_string(node.config()).unwrap();
    let mut table: toml::Table = file.parse().unwrap();
    table.insert("state_dir".into(), new.path().to_str().unwrap().into());
    fs::write(node.config(), table.to_string()).unwrap();
    let refused = node.tool(&["reseal", "--recovery-recipient", RECIPIENT]);
    let said = &refused.assert_refused(77).err;
    assert!(said.contains(node.state().to_str().unwrap()) && said.contains("restart nodeseald"), "{said}");
}
