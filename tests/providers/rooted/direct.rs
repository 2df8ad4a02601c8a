//! Mode "direct": no local KEK, and every operation at the provider.

use test_support::client::code;
use test_support::proxy::{Given, Mode};

use super::*;

fn direct(vault: &Mine, more: &str) -> Node {
    start(&[("vault", vault, "")], &format!("[local_kek]\nenabled = false\n{FAST}{more}"))
}

#[test]
fn each_text_has_a_key_of_its_own_and_each_operation_is_seen_by_the_provider() {
    let vault = Mine::new();
    let (one, two) = (direct(&vault, ""), direct(&vault, ""));
    let (first, second) = (one.client(), two.client());
    assert_eq!(first.status().unwrap().key_id, second.status().unwrap().key_id);
    let calls = |verb: &str| vault.proxy().count(verb);
    let wrapped = calls("/encrypt/");
    let texts: Vec<_> = (0..4).map(|_| Text::new(&first)).collect();
    // And what a provider proves when its login was sealed a moment ago.
    assert!(calls("/encrypt/") - wrapped >= 4);
    let opened = calls("/decrypt/");
    for text in &texts {
        text.assert_opens(&first);
        text.assert_opens(&second);
    }
    assert!(calls("/decrypt/") - opened >= 8);
    let v1 = first.encrypt_v1(b"a DEK of KMS v1").unwrap();
    assert_eq!(second.decrypt_v1(&v1).unwrap(), b"a DEK of KMS v1");
    assert_eq!(any_status(&two)["mode"], "direct");
}

#[test]
fn without_the_provider_nothing_is_served_and_status_says_so_in_time() {
    let vault = Mine::new();
    let node = direct(&vault, "on_outage = \"stop-writes-after 2s\"\n");
    let client = node.client();
    let text = Text::new(&client);
    vault.proxy().set(Mode::Reset);
    assert_eq!(Text::try_new(&client).err().unwrap().code(), Some(code::UNAVAILABLE));
    assert_eq!(text.open(&client).unwrap_err().code(), Some(code::UNAVAILABLE));
    until(SOON, "Status stops kube-apiserver from writing", || {
        (client.status().unwrap().healthz != "ok").then_some(())
    });
    assert_eq!(client.status().unwrap().key_id, text.stored.key_id);
    assert_eq!(any_status(&node)["stops_writes"], true);
    vault.proxy().set(Mode::Pass);
    until(SOON, "Status is well again", || (client.status().unwrap().healthz == "ok").then_some(()));
    text.assert_opens(&client);
}

#[test]
fn a_provider_that_limits_or_denies_every_wrap_is_an_outage_as_one_that_is_away() {
    let vault = Mine::new();
    let node = direct(&vault, "on_outage = \"stop-writes-after 2s\"\n");
    let client = node.client();
    let text = Text::new(&client);
    for (refused, class) in [(429, "throttled"), (403, "denied")] {
        vault.proxy().change(move |seen, given| match seen.path().contains("/encrypt/") {
            true => Given { status: refused, body: r#"{"errors":["no"]}"#.into(), ..given },
            false => given,
        });
        until(SOON, "Status stops kube-apiserver from writing", || {
            let _ = Text::try_new(&client);
            (client.status().unwrap().healthz != "ok").then_some(())
        });
        let status = any_status(&node);
        assert_eq!(status["healthy"], false, "{status:#}");
        assert_eq!(status["providers"][0]["class"], class, "{status:#}");
        vault.proxy().set(Mode::Pass);
        until(SOON, "Status is well again", || (client.status().unwrap().healthz == "ok").then_some(()));
        until(SOON, "it opens", || text.open(&client).ok());
    }
}

#[test]
fn from_rooted_to_direct_and_back_everything_opens() {
    let vault = Mine::new();
    let node = start(&[("vault", &vault, "")], FAST);
    let client = node.client();
    let mut texts = vec![Text::new(&client)];
    for enabled in [false, true] {
        rewrite(&node, |file| {
            file.insert(
                "local_kek".into(),
                toml::Value::Table([("enabled".into(), enabled.into())].into_iter().collect()),
            );
        });
        node.ask(&["reload"]);
        texts.push(Text::new(&client));
    }
    let forms: Vec<_> = texts.iter().map(Text::wraps).collect();
    assert_eq!(forms, [1, 0, 1]);
    texts.iter().for_each(|text| text.assert_opens(&client));
}

#[test]
fn a_node_that_was_never_anything_but_direct_turns_to_rooted_without_a_text_that_lacks_its_copies() {
    let vault = Mine::new();
    let node = direct(&vault, "");
    let other = start(&[("vault", &vault, "")], FAST);
    let (client, reader) = (node.client(), other.client());
    let key_id = Text::new(&client).stored.key_id;
    rewrite(&node, |file| drop(file.remove("local_kek")));
    node.ask(&["reload"]);
    let mut texts = Vec::new();
    until(SOON, "texts are under the local KEK", || {
        texts.push(Text::new(&client));
        texts.last().filter(|text| text.wraps() == 1).map(drop)
    });
    for text in &texts {
        assert_eq!(text.stored.key_id, key_id);
        text.assert_opens(&client);
        text.assert_opens(&reader);
    }
}

#[test]
fn a_second_way_to_the_key_that_may_not_open_stops_no_encrypt() {
    let vault = Mine::new();
    let mut node = prepare(
        &[("a", &vault, ""), ("c", &vault, "required = false")],
        &format!("[local_kek]\nenabled = false\n{FAST}"),
    );
    let lines = node.begin();
    until(SOON, "the node root is there", || node.state().join("current").exists().then_some(()));
    until(SOON, "the control socket is there", || node.control().exists().then_some(()));
    // What a policy lacks that was written for a node which encrypts.
    seal(&node.config(), "c-login", &vault.login_that_may(&["keys", "encrypt"]));
    seal(&node.config(), "a-login", &vault.login());
    lines.recv_timeout(SOON).unwrap_or_else(|_| panic!("not ready\n{}", node.logs()));
    let client = node.client();
    // Each Encrypt lets the second way prove itself, until it is known that it may not.
    until_status(&node, "c is found out", |status| {
        let text = Text::try_new(&client);
        assert!(text.is_ok(), "{:?}\n{status:#}", text.err());
        status["providers"][1]["class"].is_string()
    });
    for _ in 0..5 {
        let text = Text::try_new(&client);
        assert!(text.is_ok(), "{:?}", text.err());
    }
}
