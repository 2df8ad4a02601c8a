//! Starts: with the provider there, away, and there for the first time.

use super::*;
use crate::client::code;
use crate::proxy::Mode;

#[test]
fn a_node_that_starts_with_its_provider_away_serves_from_its_sealed_keys() {
    let vault = Mine::new();
    let mut node = start(&[("vault", &vault, "")], FAST);
    let before = Text::new(&node.client());
    assert_eq!(before.wraps(), 1);
    node.cut();
    vault.proxy().set(Mode::Reset);
    let opened = vault.proxy().count("/decrypt/");
    node.up();
    let client = node.client();
    let status = client.status().unwrap();
    assert_eq!((status.healthz.as_str(), &status.key_id), ("ok", &before.stored.key_id), "the last known key_id");
    before.assert_opens(&client);
    let during = Text::new(&client);
    during.assert_opens(&client);
    assert_eq!((during.wraps(), &during.stored.key_id), (1, &before.stored.key_id));
    assert_eq!(vault.proxy().count("/decrypt/"), opened);
    let shown = until_status(&node, "status shows the outage", |status| status["outage_seconds"] != 0);
    assert_eq!((&shown["healthy"], &shown["providers"][0]["class"]), (&json!(true), &json!("unavailable")));
}

#[test]
fn a_fresh_node_waits_for_its_provider_and_says_so() {
    let vault = Mine::new();
    vault.proxy().set(Mode::Reset);
    let providers: &[(&str, &Mine, &str)] = &[("vault", &vault, "")];
    let mut node = prepare(providers, FAST);
    let lines = begin(&mut node, providers);
    let client = node.client();
    let refused = Text::try_new(&client).err().unwrap();
    assert_eq!(refused.code(), Some(code::UNAVAILABLE));
    let status = any_status(&node);
    assert!(status["healthy"] == false && status["waits"].as_str().unwrap().contains("provider"), "{status}");
    vault.proxy().set(Mode::Pass);
    lines.recv_timeout(SOON).unwrap();
    let text = Text::new(&client);
    assert_eq!((text.wraps(), node.ask(&["keys", "list"])["keys"].as_array().unwrap().len()), (1, 1));
}

#[test]
fn a_node_without_providers_gets_one_by_a_reload_and_reads_what_it_wrote_before() {
    let mut node = Node::prepare("", "");
    node.up();
    let client = node.client();
    let before = Text::new(&client);
    assert!(before.stored.annotations.is_empty());
    let vault = Mine::new();
    seal(&node.config(), "vault-login", &vault.login());
    rewrite(&node, |file| {
        file.insert("provider".into(), tables(&[("vault", &vault, "")]));
        file.insert("write".into(), FAST.parse::<toml::Table>().unwrap()["write"].clone());
    });
    node.ask(&["reload"]);
    let old = before.stored.key_id.clone();
    until_status(&node, "another key_id is reported", |status| status["key_id"] != json!(old));
    let after = Text::new(&client);
    assert_eq!(after.wraps(), 1);
    before.assert_opens(&client);
    after.assert_opens(&client);
}
