//! The same node with a token (SoftHSM) in place of the TPM: what is killed, wrong or away, and moving from one to the other.

use std::fs;
use std::time::Duration;

use test_support::client::{Client, Stored};
use test_support::node::Node;
use test_support::process::until;

const COMES_BACK: Duration = Duration::from_secs(20);

/// A new connection on which an Encrypt was answered.
fn serving(node: &Node) -> (Client, Stored) {
    until(COMES_BACK, "an Encrypt is answered again", || {
        let client = Client::try_connect(&node.socket()).ok()?;
        let stored = client.store().ok()?;
        Some((client, stored))
    })
}

/// The maker's mark in the sealed node root (docs/formats.md).
fn sealed_by(node: &Node) -> &'static str {
    let root = fs::read(node.root().join("node/root.seal")).unwrap();
    let has = |magic: &[u8]| root.windows(magic.len()).any(|part| part == magic);
    match (has(b"NSEALTPM"), has(b"NSEALP11")) {
        (true, false) => "tpm2",
        (false, true) => "pkcs11",
        both => panic!("{both:?}"),
    }
}

#[test]
fn with_a_token_the_same_keys_after_a_clean_stop_a_power_cut_and_a_kill_of_each_part() {
    let mut node = Node::start_with_token();
    assert_eq!((sealed_by(&node), node.find("swtpm")), ("pkcs11", None));
    let mut texts = vec![node.client().store().unwrap()];
    let v1 = node.client().encrypt_v1(b"dek").unwrap();
    for how in ["SIGTERM", "nodeseald", "nodeseal-sealer", "supervisor", "power cut"] {
        match how {
            "SIGTERM" => {
                assert_eq!(node.stop(), Some(0));
                node.up();
            }
            "supervisor" => {
                node.kill_supervisor();
                node.up();
            }
            "power cut" => {
                node.cut();
                node.up();
            }
            part => {
                let old = node.kill(part);
                until(COMES_BACK, "it was started again", || node.find(part).filter(|new| *new != old));
            }
        }
        let (client, stored) = serving(&node);
        assert_eq!(stored.key_id, texts[0].key_id, "after {how}: the same key_id");
        texts.push(stored);
        texts.iter().for_each(|stored| client.assert_opens(stored));
        assert_eq!(client.decrypt_v1(&v1).unwrap(), b"dek");
        // The sealer and the token are of use again.
        assert_eq!(node.ask(&["reseal"])["seal_policy"], "none", "after {how}");
    }
    node.rotate_and_activate();
    texts.iter().for_each(|stored| node.client().assert_opens(stored));
}

#[test]
fn only_the_sealer_loads_the_module() {
    if !nix::unistd::geteuid().is_root() {
        // Both daemons are closed to their own user (PR_SET_DUMPABLE).
        return eprintln!("only root can look into the daemons");
    }
    let node = Node::start_with_token();
    node.ask(&["reseal"]);
    let maps = |program| fs::read_to_string(format!("/proc/{}/maps", node.pid(program))).unwrap();
    assert!(maps("nodeseal-sealer").contains("libsofthsm2"));
    let daemon = maps("nodeseald");
    assert!(daemon.contains("libc.so") && !daemon.contains("libsofthsm2"), "{daemon}");
}

#[test]
fn a_wrong_pin_is_given_to_the_token_once_however_often_the_daemon_asks() {
    let mut node = Node::start_with_token();
    let stored = node.client().store().unwrap();
    node.stop();
    let pin = node.dir().join("token/pin");
    let right = fs::read(&pin).unwrap();
    for (number, wrong) in [(1, "0815-0815"), (2, "4711-4711")] {
        fs::write(&pin, wrong).unwrap();
        if number == 1 {
            drop(node.begin());
        }
        let told = |node: &Node, what: &str| node.log().matches(what).count();
        until(COMES_BACK, "the token refuses it", || (told(&node, "CKR_PIN_INCORRECT") == number).then_some(()));
        let before = told(&node, "not retried");
        // The daemon asks for the device again and again.
        until(COMES_BACK, "it asks again", || (told(&node, "not retried") >= before + 2).then_some(()));
        assert_eq!(told(&node, "CKR_PIN_INCORRECT"), number);
        assert!(node.log().contains("E-HSM-PIN") && !node.logs().contains(wrong), "{}", node.log());
    }
    fs::write(&pin, &right).unwrap();
    let (client, _) = serving(&node);
    client.assert_opens(&stored);
    let right = String::from_utf8(right).unwrap();
    assert!(!node.logs().contains(&right), "the PIN stands in a log");
}

#[test]
fn without_its_token_the_keys_in_memory_serve_and_a_restart_waits_until_it_is_back() {
    let mut node = Node::start_with_token();
    let client = node.client();
    let stored = client.store().unwrap();
    let (there, away) = (node.dir().join("token/tokens"), node.dir().join("token/away"));
    fs::rename(&there, &away).unwrap();
    for _ in 0..50 {
        client.assert_opens(&client.store().unwrap());
        client.assert_opens(&stored);
    }
    assert_eq!(node.tool(&["status"]).code, 0);
    for verb in [&["keys", "rotate"][..], &["reseal"]] {
        let refused = node.tool(verb);
        assert!(refused.assert_refused(69).err.contains("E-HSM-GONE"), "{refused:?}");
    }
    client.assert_opens(&stored);
    fs::rename(&away, &there).unwrap();
    // The same process finds it again.
    node.rotate_and_activate();
    node.stop();

    fs::rename(&there, &away).unwrap();
    drop(node.begin());
    until(COMES_BACK, "the daemon says that the token is away", || node.log().contains("E-HSM-GONE").then_some(()));
    fs::rename(&away, &there).unwrap();
    serving(&node).0.assert_opens(&stored);
}

#[test]
fn a_node_root_moves_from_tpm_to_token_and_back_and_all_texts_open() {
    let mut node = Node::start();
    let mut texts = vec![node.client().store().unwrap()];
    for (backend, sealed) in [("pkcs11", "tpm2"), ("tpm2", "pkcs11"), ("pkcs11", "tpm2")] {
        node.stop();
        node.backend = backend;
        // What was sealed by the other device opens.
        node.up();
        assert_eq!(sealed_by(&node), sealed);
        texts.iter().for_each(|stored| node.client().assert_opens(stored));
        node.ask(&["reseal"]);
        assert_eq!(sealed_by(&node), backend);
        node.stop();
        node.up();
        texts.push(node.client().store().unwrap());
        texts.iter().for_each(|stored| node.client().assert_opens(stored));
    }
}
