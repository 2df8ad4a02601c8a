//! A whole node as an older release left it, with its software TPM and texts of it: what one release wrote every later release reads.
//!
//! `fixtures/release-0.1` was made by the release before the second version of `state`: a rotation done, a KEK in pre-activation.
//! `fixtures/flat-v3` was made by the last commit that wrote version 3, before each node root had a folder of its own.
//! Fixtures are only ever added.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use nodeseal::types::hex;
use test_support::client::Stored;
use test_support::node::Node;

/// Copies a folder with the modes that git does not keep.
fn copy_private(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_private(&entry.path(), &target),
            false => {
                fs::copy(entry.path(), &target).unwrap();
                fs::set_permissions(&target, Permissions::from_mode(0o600)).unwrap();
            }
        }
    }
}

/// A node with the state directory and the TPM of a fixture.
fn node_of(fixture: &Path) -> Node {
    let node = Node::prepare("", "");
    fs::create_dir(node.dir()).unwrap();
    fs::set_permissions(node.dir(), Permissions::from_mode(0o700)).unwrap();
    for folder in ["state", "tpm"] {
        copy_private(&fixture.join(folder), &node.dir().join(folder));
    }
    node
}

fn texts_of(fixture: &Path) -> Vec<Value> {
    serde_json::from_str(&fs::read_to_string(fixture.join("texts.json")).unwrap()).unwrap()
}

fn assert_opens_all(node: &Node, texts: &[Value]) {
    for text in texts {
        let key_id = text["key_id"].as_str().unwrap().to_owned();
        let stored = Stored { plaintext: bytes(text, "plaintext"), text: bytes(text, "text"), key_id };
        node.client().assert_opens(&stored);
        assert_eq!(node.client().decrypt_v1(&bytes(text, "v1_text")).unwrap(), bytes(text, "v1_plaintext"));
    }
}

fn bytes(text: &Value, field: &str) -> Vec<u8> {
    hex::decode(text[field].as_str().unwrap()).unwrap()
}

#[test]
fn what_release_0_1_wrote_is_read_and_carried_on() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/service/fixtures/release-0.1");
    let mut node = node_of(&fixture);
    // Flat, until the first change of keys.
    let version = |node: &Node| fs::read(node.state().join("state")).unwrap()[9];
    assert_eq!(version(&node), 1);
    let texts = texts_of(&fixture);
    for _ in 0..2 {
        node.up();
        assert_eq!(version(&node), 4, "written anew at the first reservation");
        assert_opens_all(&node, &texts);
        let keys = node.ask(&["keys", "list"]);
        let states: Vec<&str> =
            keys["keys"].as_array().unwrap().iter().map(|key| key["state"].as_str().unwrap()).collect();
        assert_eq!(states, ["active", "pre-activation", "deactivated"]);
        assert_eq!(node.client().status().unwrap().key_id, texts[1]["key_id"].as_str().unwrap());
        assert_eq!(node.stop(), Some(0));
    }
}

#[test]
fn the_flat_layout_is_read_and_gets_a_folder_at_the_first_change_of_keys() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/service/fixtures/flat-v3");
    let mut node = node_of(&fixture);
    let texts = texts_of(&fixture);
    assert_eq!(fs::read(node.state().join("state")).unwrap()[9], 3);
    for _ in 0..2 {
        node.up();
        assert_opens_all(&node, &texts);
        assert_eq!(node.stop(), Some(0));
        assert!(!node.state().join("current").exists(), "nothing but a reservation was written");
    }
    node.up();
    let key_id = node.client().status().unwrap().key_id;
    node.ask(&["keys", "activate"]);
    assert_ne!(node.client().status().unwrap().key_id, key_id);
    for _ in 0..2 {
        assert!(node.root().join("state").exists());
        for left in ["state", "state.prev", "node", "keyring"] {
            assert!(!node.state().join(left).exists(), "{left}");
        }
        assert_opens_all(&node, &texts);
        assert_eq!(node.stop(), Some(0));
        node.up();
    }
}
