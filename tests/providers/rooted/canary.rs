//! Known secrets go through everything at the finest log level, and are found nowhere.

use super::*;
use nodeseal::types::hex;
use test_support::process::snapshot;
use test_support::proxy::Mode;
use test_support::scan::{Needles, search, summary};

#[test]
fn no_login_token_or_key_is_in_any_log_output_or_file() {
    let vault = Mine::new();
    let rules = format!("log = {{ level = \"trace\", format = \"json\" }}\n{FAST}");
    let node = start(&[("vault", &vault, "")], &rules);
    let other = start(&[("vault", &vault, "")], &rules);
    let client = node.client();
    let text = Text::new(&client);
    text.assert_opens(&other.client());
    // Errors show much: an outage, a lie, a refused login.
    vault.proxy().set(Mode::Reset);
    let _ = node.tool(&["keys", "rotate"]);
    vault.proxy().change(|_, mut given| {
        given.status = 403;
        given
    });
    until_status(&node, "the refusal is seen", |status| !status["providers"][0]["error"].is_null());
    vault.proxy().set(Mode::Pass);
    let mut canaries = crate::conformance::Ground::canaries(&vault);
    canaries.push(String::from_utf8_lossy(&text.plaintext).into_owned());
    canaries.push(hex::encode(&text.plaintext));
    assert!(canaries.len() > 6, "tokens and plaintexts were seen on the wire");
    let shown = [
        node.logs(),
        other.logs(),
        status(&node).to_string(),
        node.tool(&["status"]).out,
        node.tool(&["credentials", "list"]).out,
        node.tool(&["keys", "list"]).out,
    ];
    let files = snapshot(&node.state());
    for canary in &canaries {
        assert!(shown.iter().all(|text| !text.contains(canary)), "{canary} is shown");
        for (path, bytes) in &files {
            let found = bytes.windows(canary.len()).any(|window| window == canary.as_bytes());
            assert!(!found, "a secret is in {path}");
        }
    }
}

/// KEKs go through base64, JSON, HTTP and TLS on their way to a provider, and the login does too.
#[test]
fn what_was_sent_to_a_provider_is_not_left_in_memory() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root looks into other processes");
        return;
    }
    let vault = Mine::new();
    let node = start(&[("vault", &vault, "")], FAST);
    let other = start(&[("vault", &vault, "")], FAST);
    let text = Text::new(&node.client());
    // Both ways: this one's KEK is wrapped, the other's is opened.
    text.assert_opens(&other.client());
    let mut needles = Needles::default();
    let mut keks = 0;
    for seen in vault.proxy().seen() {
        let Ok(body) = serde_json::from_str::<Value>(&seen.body) else { continue };
        let Some(sent) = body["plaintext"].as_str() else { continue };
        needles.add("KEK in base64", sent.as_bytes());
        let key = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, sent).unwrap();
        if let Ok(key) = <&[u8; 32]>::try_from(&key[..]) {
            needles.add_aes("KEK", key);
            keks += 1;
        }
    }
    assert!(keks >= 2, "KEKs of both nodes were seen on the wire");
    // Tokens stay for as long as they are valid; what they were had with does not.
    let canaries = crate::conformance::Ground::canaries(&vault);
    let [.., secret_id, _role_id] = &canaries[..] else { panic!("{canaries:?}") };
    assert!(vault.login().contains(secret_id), "it is what the node logs in with");
    needles.add("login", secret_id.as_bytes());
    needles.add("control", text.stored.key_id.as_bytes());
    for node in [&node, &other] {
        node.client().status().unwrap();
        let seen = search(node.pid("nodeseald"), &needles);
        let left: Vec<_> = seen.found.iter().filter(|(name, ..)| !name.starts_with("control")).collect();
        assert!(left.is_empty(), "{}", summary(left));
        assert!(!seen.found.is_empty(), "the key_id is in its memory");
    }
}
