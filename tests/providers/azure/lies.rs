//! Answers in the right form that cannot be right.

use nodeseal::provider::ErrorKind;
use nodeseal::types::Key;
use serde_json::{Value, json};
use test_support::proxy::Mode;

use super::Mine;
use crate::conformance::{Ground, Of, refused};

/// Changes the JSON of answers to requests whose path has this.
fn change(mine: &Mine, path: &'static str, change: impl Fn(&mut Value) + Send + Sync + 'static) {
    mine.proxy().change(move |seen, mut given| {
        if seen.path().contains(path) {
            let mut body: Value = serde_json::from_str(&given.body).unwrap();
            change(&mut body);
            given.body = body.to_string();
        }
        given
    });
}

#[tokio::test]
async fn an_answer_of_another_version_key_or_vault_is_a_lie() {
    let mine = Mine::aes();
    let kek = mine.kek();
    let (key, of) = (Key::random().unwrap(), Of::new("prod", 1));
    let wrapped = kek.wrap_key(&key, of.context()).await.unwrap();
    let version = wrapped.version.to_string();
    for (from, to) in [
        (version.as_str(), "0123456789abcdef0123456789abcdef"),
        ("/keys/kubernetes/", "/keys/other/"),
        ("https://127.0.0.1", "https://evil.example"),
    ] {
        let (from, to) = (from.to_owned(), to.to_owned());
        change(&mine, "wrapkey", move |body| body["kid"] = body["kid"].as_str().unwrap().replace(&from, &to).into());
        refused(&mine, kek.wrap_key(&key, of.context()).await, &[ErrorKind::Lied]);
        refused(&mine, kek.unwrap_key(&wrapped, of.context()).await, &[ErrorKind::Lied]);
    }
    for value in
        ["", "AAAA", "!!!!", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]
    {
        change(&mine, "wrapkey", move |body| body["value"] = value.into());
        refused(&mine, kek.wrap_key(&key, of.context()).await, &[ErrorKind::Lied]);
        refused(&mine, kek.unwrap_key(&wrapped, of.context()).await, &[ErrorKind::Lied]);
    }
    change(&mine, "/keys/kubernetes/", |body| body["attributes"]["created"] = Value::Null);
    refused(&mine, kek.probe().await, &[ErrorKind::Lied]);
}

#[tokio::test]
async fn a_challenge_that_wants_a_login_to_something_else_gets_none() {
    let mine = Mine::aes();
    let kek = mine.kek();
    for challenge in [
        "Bearer authorization=\"https://login.evil.example/common\", resource=\"https://management.azure.com\"",
        "Bearer authorization=\"https://login.evil.example/common\", scope=\"https://graph.microsoft.com/.default\"",
        "Basic realm=\"x\"",
    ] {
        mine.proxy().change(move |_, mut given| {
            given.challenge = given.challenge.map(|_| challenge.to_owned());
            given
        });
        refused(&mine, kek.probe().await, &[ErrorKind::Peer]);
    }
    // Not one request with a token has reached the vault, and no login was made for anything else.
    let seen = mine.proxy().seen();
    assert!(seen.iter().all(|seen| seen.header("authorization").is_none()));
    assert!(seen.iter().filter(|seen| seen.path().contains("/oauth2/")).all(|seen| seen.body.contains("vault.test")));
    // And when it asks for the right one again, it gets it.
    mine.proxy().set(Mode::Pass);
    kek.probe().await.unwrap();
}

#[tokio::test]
async fn an_echo_of_what_was_sent_does_not_get_into_an_error() {
    let mine = Mine::aes();
    let kek = mine.kek();
    let (key, of) = (Key::random().unwrap(), Of::new("prod", 1));
    kek.probe().await.unwrap();
    mine.proxy().change(|seen, mut given| {
        let words = format!("{}{} {}", "x".repeat(200), seen.header("authorization").unwrap_or_default(), seen.body);
        (given.status, given.body) = (403, json!({ "error": { "code": "Forbidden", "message": words } }).to_string());
        given
    });
    refused(&mine, kek.probe().await, &[ErrorKind::Forbidden]);
    mine.proxy().change(|seen, mut given| {
        if seen.path().contains("wrapkey") {
            let body = json!({ "error": { "code": "Forbidden", "message": seen.body } });
            (given.status, given.body) = (403, body.to_string());
        }
        given
    });
    let error = refused(&mine, kek.wrap_key(&key, of.context()).await, &[ErrorKind::Forbidden]);
    assert!(error.to_string().ends_with("(wrapKey: 403 Forbidden)"), "{error}");
}

#[tokio::test]
async fn a_login_that_lives_for_no_time_or_for_ever_is_a_lie() {
    let mine = Mine::aes();
    for seconds in [json!(0), json!(-1), json!(i64::MAX), json!(i64::MIN)] {
        mine.proxy().change(move |seen, mut given| {
            if seen.path().contains("/oauth2/") {
                let mut body: Value = serde_json::from_str(&given.body).unwrap();
                body["expires_in"] = seconds.clone();
                given.body = body.to_string();
            }
            given
        });
        refused(&mine, mine.kek().probe().await, &[ErrorKind::Lied]);
    }
}

#[tokio::test]
async fn a_list_that_goes_on_at_another_host_is_not_followed() {
    let mine = Mine::aes();
    let trap = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let url = format!("http://{}/keys/kubernetes/versions?x=y", trap.local_addr().unwrap());
    for url in [url.clone(), url.replace("http://", "https://"), "https://evil.example/keys".to_owned()] {
        change(&mine, "/versions", move |body| body["nextLink"] = url.clone().into());
        // In clear the SDK itself goes nowhere with a login.
        refused(&mine, mine.kek().probe().await, &[ErrorKind::Peer, ErrorKind::Protocol]);
    }
    assert!(trap.accept().is_err(), "somebody came");
}

#[tokio::test]
async fn a_refusal_without_a_challenge_and_a_challenge_of_the_authority_are_refused_logins() {
    let mine = Mine::aes();
    mine.proxy().change(|seen, mut given| {
        if seen.path().contains("/oauth2/") {
            (given.status, given.challenge) = (401, Some("Bearer realm=\"x\"".to_owned()));
            given.body = json!({ "error": "invalid_client", "error_description": "AADSTS7000215" }).to_string();
        }
        given
    });
    refused(&mine, mine.kek().probe().await, &[ErrorKind::Login]);
    mine.proxy().change(|_, mut given| {
        given.challenge = None;
        given
    });
    refused(&mine, mine.kek().probe().await, &[ErrorKind::Login]);
    mine.proxy().set(Mode::Pass);
    mine.kek().probe().await.unwrap();
}
