//! Which version wraps, and what makes a key another one.

use std::time::Duration;

use nodeseal::provider::azure::{Algorithm, AzureKek, AzureSettings};
use nodeseal::provider::{ErrorKind, Kek};
use nodeseal::types::Key;
use serde_json::{Value, json};

use super::{Mine, SECRET};
use crate::conformance::{Ground, Of, refused};
use crate::credentials::Memory;

#[tokio::test]
async fn a_disabled_newest_version_does_not_wrap_although_azure_would_let_it() {
    let mine = Mine::rsa();
    let kek = mine.kek();
    let first = kek.probe().await.unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    mine.rotate();
    let newest = kek.probe().await.unwrap().version;
    assert_ne!(newest, first.version);
    mine.enable(newest.as_str(), false);
    let (key, of) = (Key::random().unwrap(), Of::new("prod", 1));
    for kek in [kek.clone(), mine.kek()] {
        let wrapped = kek.wrap_key(&key, of.context()).await.unwrap();
        assert_eq!((&wrapped.version, &wrapped.identity), (&first.version, &first.identity));
        assert_eq!(kek.unwrap_key(&wrapped, of.context()).await.unwrap().expose(), key.expose());
    }
    mine.disable();
    refused(&mine, kek.wrap_key(&key, of.context()).await, &[ErrorKind::NoKey]);
    mine.restore();
    assert_eq!(kek.wrap_key(&key, of.context()).await.unwrap().version, newest);
}

#[tokio::test]
async fn a_version_outside_of_its_time_does_not_wrap() {
    let mine = Mine::aes();
    let kek = mine.kek();
    let first = kek.probe().await.unwrap().version;
    std::thread::sleep(Duration::from_millis(1100));
    mine.rotate();
    let newest = kek.probe().await.unwrap().version;
    for attributes in [json!({ "exp": 1_700_000_000 }), json!({ "exp": 9_000_000_000_u64, "nbf": 8_000_000_000_u64 })] {
        mine.server.keys("PATCH", &format!("keys/kubernetes/{newest}"), &json!({ "attributes": attributes }));
        assert_eq!(kek.probe().await.unwrap().version, first);
    }
}

#[tokio::test]
async fn a_key_of_many_versions_is_listed_once_and_stays_the_same_key() {
    let mine = Mine::aes();
    let kek = mine.kek();
    let first = kek.probe().await.unwrap();
    for _ in 0..60 {
        mine.rotate();
    }
    let later = kek.probe().await.unwrap();
    assert!(later.identity == first.identity && later.version != first.version);
    assert_eq!(mine.proxy().count("/versions"), 1, "a rotation needs no list");
    // Somebody who comes new reads three pages, once.
    let fresh = mine.kek();
    assert_eq!(fresh.probe().await.unwrap(), later);
    fresh.probe().await.unwrap();
    assert_eq!(mine.proxy().count("/versions"), 4);
}

#[tokio::test]
async fn a_key_that_was_deleted_and_recovered_is_the_same_key() {
    let mine = Mine::aes();
    let kek = mine.kek();
    let before = kek.probe().await.unwrap();
    let (key, of) = (Key::random().unwrap(), Of::new("prod", 1));
    let wrapped = kek.wrap_key(&key, of.context()).await.unwrap();
    mine.server.keys("DELETE", "keys/kubernetes", &Value::Null);
    refused(&mine, kek.probe().await, &[ErrorKind::NoKey]);
    refused(&mine, kek.unwrap_key(&wrapped, of.context()).await, &[ErrorKind::NoKey]);
    mine.server.keys("POST", "deletedkeys/kubernetes/recover", &json!({}));
    assert_eq!(kek.probe().await.unwrap(), before);
    assert_eq!(kek.unwrap_key(&wrapped, of.context()).await.unwrap().expose(), key.expose());
}

#[tokio::test]
async fn a_key_that_does_not_fit_is_refused_with_what_it_is() {
    let mine = Mine::rsa();
    let memory = Memory::with("azure-secret", SECRET);
    let of = |algorithm, key: &str| {
        let key = key.parse().unwrap();
        AzureKek::open(AzureSettings { algorithm, key, ..mine.settings(mine.by_secret()) }, memory.clone()).unwrap()
    };
    let error = refused(&mine, of(Algorithm::A256Kw, "kubernetes").probe().await, &[ErrorKind::Unfit]);
    assert!(error.to_string().contains("type RSA does not do A256KW"), "{error}");
    refused(&mine, of(Algorithm::RsaOaep256, "another").probe().await, &[ErrorKind::NoKey]);
    mine.server.keys("POST", "keys/signs/create", &json!({ "kty": "RSA", "key_ops": ["sign", "verify"] }));
    refused(&mine, of(Algorithm::RsaOaep256, "signs").probe().await, &[ErrorKind::Unfit]);
}
