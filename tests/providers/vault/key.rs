//! What is particular to a transit key.

use std::time::{Duration, Instant};

use nodeseal::provider::set::{Member, Role, WrapContext};
use nodeseal::provider::vault::Remark;
use nodeseal::provider::vault::{Vault, VaultSettings};
use nodeseal::provider::{ErrorKind, Kek};
use nodeseal::types::{KekId, Key};
use serde_json::json;
use test_support::proxy::Mode;

use super::server::{Server, shared};
use super::{Mine, VaultAuth};
use crate::conformance::{Ground, Of, TIMEOUT, refused, shown};
use crate::credentials::Memory;

async fn round_trip(mine: &Mine) -> Vault {
    let vault = Vault::new(mine.settings(mine.approle()), mine.credential(&mine.secret_id));
    let (key, of) = (Key::random().unwrap(), Of::new("prod", 1));
    let wrapped = vault.wrap_key(&key, of.context()).await.unwrap();
    assert_eq!(vault.unwrap_key(&wrapped, of.context()).await.unwrap().expose(), key.expose());
    vault
}

#[tokio::test]
async fn every_type_that_encrypts_and_decrypts_wraps_and_no_other() {
    for key in [
        json!({ "type": "aes128-gcm96" }),
        json!({ "type": "chacha20-poly1305" }),
        json!({ "type": "aes256-gcm96", "derived": true }),
        json!({ "type": "aes256-gcm96", "derived": true, "convergent_encryption": true }),
    ] {
        assert_eq!(round_trip(&Mine::of_type(key)).await.remarks(), []);
    }
    assert_eq!(round_trip(&Mine::of_type(json!({ "type": "rsa-2048" }))).await.remarks(), [Remark::Unbound]);
    let exportable = Mine::of_type(json!({ "type": "aes256-gcm96", "exportable": true }));
    assert_eq!(round_trip(&exportable).await.remarks(), [Remark::Exportable]);
    for kind in ["ed25519", "ecdsa-p256", "hmac"] {
        let mine = Mine::of_type(json!({ "type": kind, "key_size": if kind == "hmac" { 32 } else { 0 } }));
        refused(&mine, mine.kek().probe().await, &[ErrorKind::Unfit]);
    }
}

#[tokio::test]
async fn the_version_is_pinned_in_the_request_and_another_one_in_the_answer_is_a_lie() {
    let mine = Mine::new();
    let kek = mine.kek();
    let (key, of) = (Key::random().unwrap(), Of::new("prod", 1));
    kek.wrap_key(&key, of.context()).await.unwrap();
    let asked = mine.proxy().seen().into_iter().find(|seen| seen.path().contains("/encrypt/")).unwrap();
    let body: serde_json::Value = serde_json::from_str(&asked.body).unwrap();
    assert_eq!(body["key_version"], "1");
    for (from, to) in [("vault:v1:", "vault:v2:"), ("\"key_version\":1", "\"key_version\":2"), ("vault:v1:", "")] {
        mine.proxy().change(move |seen, mut given| {
            if seen.path().contains("/encrypt/") {
                assert!(given.body.contains(from), "{}", given.body);
                given.body = given.body.replace(from, to);
            }
            given
        });
        refused(&mine, kek.wrap_key(&key, of.context()).await, &[ErrorKind::Lied]);
    }
}

#[tokio::test]
async fn a_latest_version_that_goes_back_while_it_wraps_is_a_lie() {
    let mine = Mine::new();
    mine.rotate();
    let kek = mine.kek();
    kek.probe().await.unwrap();
    mine.proxy().change(|seen, mut given| {
        if seen.path().contains("/keys/") {
            let mut answer: serde_json::Value = serde_json::from_str(&given.body).unwrap();
            answer["data"]["latest_version"] = json!(1);
            answer["data"]["keys"].as_object_mut().unwrap().remove("2");
            given.body = answer.to_string();
        }
        given
    });
    let (key, of) = (Key::random().unwrap(), Of::new("prod", 1));
    refused(&mine, kek.wrap_key(&key, of.context()).await, &[ErrorKind::Lied]);
}

#[tokio::test]
async fn a_wrap_and_its_proof_take_two_round_trips_and_the_key_is_read_after_the_text_was_made() {
    const LATE: Duration = Duration::from_millis(400);
    let mine = Mine::new();
    let member = Member::new("vault", Role::Required, mine.kek());
    let of = WrapContext { cluster: "prod".parse().unwrap(), kek: KekId::from_bytes([1; 16]) };
    let key = Key::random().unwrap();
    let wrap = async || {
        let end = tokio::time::Instant::now() + TIMEOUT;
        member.wrap_and_prove(&key, &of, TIMEOUT, end).await.unwrap();
    };
    // Login, key and connections.
    wrap().await;
    let before = mine.proxy().seen().len();
    mine.proxy().set(Mode::Late(LATE));
    let begun = Instant::now();
    wrap().await;
    assert!(begun.elapsed() < 3 * LATE, "{:?}", begun.elapsed());
    let asked: Vec<String> = mine.proxy().seen()[before..].iter().map(|seen| seen.path().to_owned()).collect();
    let place = |verb: &str| asked.iter().position(|path| path.contains(verb)).unwrap();
    assert_eq!((asked.len(), place("/encrypt/")), (3, 0), "{asked:?}");
    assert!(place("/keys/") > 0 && place("/decrypt/") > 0);
}

#[tokio::test]
async fn an_echo_of_what_was_sent_does_not_get_into_an_error() {
    let mine = Mine::new();
    let kek = mine.kek();
    let (key, of) = (Key::random().unwrap(), Of::new("prod", 1));
    kek.probe().await.unwrap();
    for what in ["x-vault-token", "plaintext"] {
        mine.proxy().change(move |seen, mut given| {
            let body: serde_json::Value = serde_json::from_str(&seen.body).unwrap_or_default();
            let echo = seen.header(what).or(body[what].as_str()).unwrap_or("nothing");
            given.status = 400;
            given.body = json!({ "errors": ["you sent", echo] }).to_string();
            given
        });
        // `refused` looks for both.
        refused(&mine, kek.wrap_key(&key, of.context()).await, &[ErrorKind::Unfit]);
        mine.proxy().set(Mode::Pass);
        kek.probe().await.unwrap();
    }
}

#[tokio::test]
async fn a_policy_without_the_right_to_read_the_key_is_named() {
    let mine = Mine::new();
    shared().allow(&mine.name, &["encrypt", "decrypt"]);
    let error = refused(&mine, mine.kek().probe().await, &[ErrorKind::Forbidden]);
    assert!(error.to_string().contains(&format!("allow read on {}/keys/kubernetes", mine.name)), "{error}");
}

#[tokio::test]
async fn a_key_that_is_not_there_is_not_made() {
    let mine = Mine::new();
    let settings = VaultSettings {
        key: "other".parse().unwrap(),
        ..mine.settings(VaultAuth::Token { credential: "root".parse().unwrap() })
    };
    let vault = Vault::new(settings, Memory::with("root", "root-of-the-tests"));
    refused(&mine, vault.probe().await, &[ErrorKind::NoKey]);
    let (key, of) = (Key::random().unwrap(), Of::new("prod", 1));
    refused(&mine, vault.wrap_key(&key, of.context()).await, &[ErrorKind::NoKey]);
    refused(&mine, vault.probe().await, &[ErrorKind::NoKey]);
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_a_sealed_vault_is_down() {
    let mine = Mine::new();
    let kek = mine.kek();
    kek.probe().await.unwrap();
    mine.proxy().change(|_, mut given| {
        given.status = 307;
        given
    });
    let error = refused(&mine, kek.probe().await, &[ErrorKind::Down]);
    assert!(error.to_string().contains("https://active.example:8200, which is not followed"), "{error}");
    mine.proxy().set(Mode::Pass);
    kek.probe().await.unwrap();

    let own = Server::start();
    let settings = VaultSettings {
        address: format!("http://{}", own.plain()).parse().unwrap(),
        ..mine.settings(VaultAuth::Token { credential: "root".parse().unwrap() })
    };
    own.post("sys/mounts/transit", json!({ "type": "transit" }));
    own.post("transit/keys/kubernetes", json!({}));
    let settings = VaultSettings { mount: "transit".parse().unwrap(), ..settings };
    let vault = Vault::new(settings, Memory::with("root", "root-of-the-tests"));
    vault.probe().await.unwrap();
    own.post("sys/seal", json!({}));
    let error = refused(&mine, vault.probe().await, &[ErrorKind::Down]);
    assert!(shown(&error).contains("sealed"), "{error}");
    drop(own);
    refused(&mine, vault.probe().await, &[ErrorKind::Away]);
}
