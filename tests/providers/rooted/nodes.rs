//! Two nodes with a TPM each, and nothing in common but the provider.

use test_support::client::code;
use test_support::proxy::Mode;
use test_support::runtime;

use super::*;

#[test]
fn two_nodes_report_one_key_id_and_sixty_four_misses_are_one_question_that_is_never_asked_again() {
    let vault = Mine::new();
    let providers: &[(&str, &Mine, &str)] = &[("vault", &vault, "")];
    let (one, mut two) = (start(providers, FAST), start(providers, FAST));
    let (first, second) = (one.client(), two.client());
    assert_eq!(first.status().unwrap().key_id, second.status().unwrap().key_id);
    let texts: Vec<_> = (0..64).map(|_| Text::new(&first)).collect();
    let before = vault.proxy().count("/decrypt/");
    let asked: Vec<_> = texts
        .iter()
        .map(|text| {
            let (client, text) = (second.clone(), text.clone());
            runtime::shared().spawn(async move { (client.decrypting(text.request()).await, text.plaintext) })
        })
        .collect();
    for task in asked {
        let (opened, plaintext) = runtime::shared().block_on(task).unwrap();
        assert_eq!(opened.unwrap(), plaintext);
    }
    assert_eq!(vault.proxy().count("/decrypt/") - before, 1);
    // The KEK of the other node gets a sealed copy here, so that not even a start needs the provider for it.
    until_status(&two, "the other node's KEK is kept", |status| status["keys"] == 2);
    two.cut();
    vault.proxy().set(Mode::Reset);
    two.up();
    let second = two.client();
    texts.iter().for_each(|text| text.assert_opens(&second));
    assert_eq!(vault.proxy().count("/decrypt/") - before, 1);
}

#[test]
fn a_text_of_an_unknown_node_waits_for_the_provider_and_opens_when_it_is_back() {
    let vault = Mine::new();
    let providers: &[(&str, &Mine, &str)] = &[("vault", &vault, "")];
    let (one, two) = (start(providers, FAST), start(providers, FAST));
    let (text, client) = (Text::new(&one.client()), two.client());
    vault.proxy().set(Mode::Reset);
    assert_eq!(text.open(&client).unwrap_err().code(), Some(code::UNAVAILABLE));
    let own = Text::new(&client);
    own.assert_opens(&client);
    vault.proxy().set(Mode::Pass);
    until(SOON, "the text opens", || (text.open(&client).ok()? == text.plaintext).then_some(()));
}

#[test]
fn what_was_changed_on_its_way_is_refused_and_no_providers_fault() {
    let vault = Mine::new();
    let providers: &[(&str, &Mine, &str)] = &[("vault", &vault, "")];
    let (one, two) = (start(providers, FAST), start(providers, FAST));
    let (text, client) = (Text::new(&one.client()), two.client());
    let mut changed = text.request();
    *changed.ciphertext.last_mut().unwrap() ^= 1;
    assert_eq!(client.decrypt_request(changed).unwrap_err().code(), Some(code::INVALID_ARGUMENT));
    for name in text.stored.annotations.keys() {
        let mut lacking = text.request();
        lacking.annotations.remove(name);
        assert!(client.decrypt_request(lacking).is_err(), "{name}");
        let mut changed = text.request();
        *changed.annotations.get_mut(name).unwrap().last_mut().unwrap() ^= 1;
        assert!(client.decrypt_request(changed).is_err(), "{name}");
    }
    text.assert_opens(&client);
    assert_eq!(status(&two)["providers"][0]["error"], Value::Null);
}

#[test]
fn a_kek_that_was_destroyed_here_stays_so_whatever_the_provider_could_open() {
    let vault = Mine::new();
    let node = start(&[("vault", &vault, "")], FAST);
    let client = node.client();
    let text = Text::new(&client);
    let old = node.ask(&["keys", "list"])["keys"][0]["id"].as_str().unwrap().to_owned();
    node.rotate_and_activate();
    text.assert_opens(&client);
    let refused = node.tool(&["keys", "retire", &old, "--confirm", &old, "--without-scan"]);
    assert!(refused.code != 0 && refused.err.contains("write.epoch"), "{refused:?}");
    rewrite(&node, |file| {
        file["write"].as_table_mut().unwrap().insert("epoch".into(), 1.into());
    });
    assert_eq!(node.tool(&["reload"]).code, 0);
    until_status(&node, "the key_id has moved", |_| {
        node.ask(&["keys", "list"])["keys"].as_array().unwrap().iter().all(|key| key["under_key_id"] == false)
    });
    node.ask(&["keys", "retire", &old, "--confirm", &old, "--without-scan"]);
    assert_eq!(text.open(&client).unwrap_err().code(), Some(code::NOT_FOUND));
    let left: Vec<_> = fs::read_dir(node.root().join("keyring")).unwrap().collect();
    assert!(
        left.iter().all(|entry| !entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(&old)),
        "{left:?}"
    );
}

#[test]
fn more_texts_of_another_node_than_may_wait_for_a_provider_that_hangs_keep_status_and_own_texts_from_nobody() {
    const CLIENTS: usize = 6;
    const CALLS: usize = 1200;
    let vault = Mine::new();
    let providers: &[(&str, &Mine, &str)] = &[("vault", &vault, "")];
    let (one, two) = (start(providers, FAST), start(providers, FAST));
    let (text, own) = (Text::new(&one.client()), Text::new(&two.client()));
    vault.proxy().set(Mode::Silent);
    let clients: Vec<_> = (0..CLIENTS).map(|_| two.client()).collect();
    let client = two.client();
    let asked: Vec<_> = (0..CALLS)
        .map(|call| {
            let (client, request) = (clients[call % CLIENTS].clone(), text.request());
            runtime::shared().spawn(async move { client.decrypting(request).await })
        })
        .collect();
    // As many are in flight as the API takes at once.
    let finished = || asked.iter().filter(|call| call.is_finished()).count();
    until(SOON, "the calls are in flight", || (finished() >= CALLS - 1024).then_some(()));
    client.status().unwrap();
    own.assert_opens(&client);
    Text::new(&client).assert_opens(&client);
    assert!(finished() < CALLS, "the others have waited meanwhile");
    let codes: Vec<_> =
        asked.into_iter().map(|call| runtime::shared().block_on(call).unwrap().unwrap_err().code()).collect();
    let refused = codes.iter().filter(|code| **code == Some(code::RESOURCE_EXHAUSTED)).count();
    assert!(codes.iter().all(|code| matches!(*code, Some(code::RESOURCE_EXHAUSTED | code::UNAVAILABLE))), "{codes:?}");
    assert!((1..CALLS).contains(&refused), "{refused}");
    vault.proxy().set(Mode::Pass);
    until(SOON, "the text opens", || (text.open(&client).ok()? == text.plaintext).then_some(()));
}
