//! Each method of logging in, what replaces a login, and what a login must not do.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nodeseal::provider::vault::{Vault, VaultAuth, VaultSettings};
use nodeseal::provider::{ErrorKind, Kek, LoginTries};
use nodeseal::store::RunFile;
use nodeseal::types::Explained;
use rcgen::{KeyPair, SigningKey};
use serde_json::{Value, json};
use test_support::proxy::Mode;

use super::Mine;
use super::server::shared;
use crate::conformance::{Ground, NOWHERE, refused, shown};
use crate::credentials::Memory;

fn token(mine: &Mine, more: Value) -> String {
    let mut body = json!({ "policies": [&mine.name], "no_default_policy": false });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    shared().post("auth/token/create", body)["auth"]["client_token"].as_str().unwrap().to_owned()
}

fn by_token() -> VaultAuth {
    VaultAuth::Token { credential: "vault-token".parse().unwrap() }
}

#[tokio::test]
async fn a_token_is_renewed_while_nobody_uses_it_and_noticed_when_it_is_revoked() {
    let mine = Mine::new();
    let text = token(&mine, json!({ "period": "4s" }));
    let memory = Memory::with("vault-token", &format!("{text}\n"));
    let vault = mine.vault(by_token(), &memory);
    let keeping = tokio::spawn(vault.keep_login());
    tokio::time::sleep(Duration::from_secs(7)).await;
    vault.probe().await.unwrap();
    assert!(mine.proxy().count("auth/token/renew-self") >= 2, "{}", mine.proxy().count("renew-self"));
    keeping.abort();

    shared().post("auth/token/revoke", json!({ "token": text }));
    refused(&mine, vault.probe().await, &[ErrorKind::Login]);
    // The operator seals another one: it is taken up without a restart, after a pause of seconds.
    memory.set("vault-token", &token(&mine, json!({})));
    for _ in 0..40 {
        if vault.probe().await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    vault.probe().await.unwrap();
}

#[tokio::test]
async fn an_approle_login_that_was_revoked_is_made_again_within_the_call() {
    let mine = Mine::new();
    let kek = mine.kek();
    kek.probe().await.unwrap();
    let seen = mine.proxy().seen();
    let used = seen.iter().rev().find_map(|seen| seen.header("x-vault-token")).unwrap();
    shared().post("auth/token/revoke", json!({ "token": used }));
    kek.probe().await.unwrap();
    assert_eq!(mine.proxy().count("auth/approle/login"), 2);
}

#[tokio::test]
async fn many_calls_make_one_login_and_a_denied_right_makes_no_storm() {
    let mine = Mine::new();
    let kek = mine.kek();
    let all: Vec<_> = (0..32)
        .map(|_| {
            let kek = kek.clone();
            tokio::spawn(async move { kek.probe().await.unwrap() })
        })
        .collect();
    for task in all {
        task.await.unwrap();
    }
    mine.deny();
    for _ in 0..10 {
        refused(&mine, kek.probe().await, &[ErrorKind::Forbidden]);
    }
    assert_eq!(mine.proxy().count("auth/approle/login"), 1);
}

#[tokio::test]
async fn refused_logins_are_not_tried_at_every_call() {
    let mine = Mine::new();
    let stranger = mine.stranger();
    for _ in 0..50 {
        refused(&mine, stranger.probe().await, &[ErrorKind::Login]);
    }
    assert!(mine.proxy().count("auth/approle/login") <= 3);
}

fn wrapping(mine: &Mine, token: &str) -> Arc<Memory> {
    Memory::with("vault-approle", &json!({ "role_id": mine.role_id, "wrapping_token": token }).to_string())
}

#[tokio::test]
async fn a_wrapped_secret_id_is_fetched_once_and_sealed_in_its_place() {
    let mine = Mine::new();
    let wrapped = shared().post_wrapped(&format!("auth/approle/role/{}/secret-id", mine.name), json!({}));
    let memory = wrapping(&mine, &wrapped);
    mine.vault(mine.approle(), &memory).probe().await.unwrap();
    let sealed: Value = serde_json::from_str(&memory.get("vault-approle")).unwrap();
    assert!(sealed["secret_id"].is_string() && sealed.get("wrapping_token").is_none());
    // After a restart too.
    mine.vault(mine.approle(), &memory).probe().await.unwrap();
    assert_eq!(mine.proxy().count("sys/wrapping/unwrap"), 1);
    // And whoever comes second with the same wrapping token is told what that means.
    let error =
        refused(&mine, mine.vault(mine.approle(), &wrapping(&mine, &wrapped)).probe().await, &[ErrorKind::Login]);
    assert!(error.to_string().contains("opened before") && !error.to_string().contains(&wrapped), "{error}");
}

#[tokio::test]
async fn a_wrapping_token_of_another_path_is_not_used() {
    let (mine, other) = (Mine::new(), Mine::new());
    for path in ["sys/wrapping/wrap".to_owned(), format!("auth/approle/role/{}/secret-id", other.name)] {
        let wrapped = shared().post_wrapped(&path, json!({ "secret_id": "of a thief" }));
        let vault = mine.vault(mine.approle(), &wrapping(&mine, &wrapped));
        let error = refused(&mine, vault.probe().await, &[ErrorKind::Login]);
        assert!(error.to_string().contains(&path), "{error}");
    }
    assert_eq!(mine.proxy().count("sys/wrapping/unwrap"), 0);
    let VaultAuth::AppRole { mount, credential, .. } = mine.approle() else { panic!() };
    let without = VaultAuth::AppRole { mount, role: None, credential };
    refused(&mine, mine.vault(without, &wrapping(&mine, "hvs.x")).probe().await, &[ErrorKind::Unfit]);
}

#[tokio::test]
async fn a_fetched_secret_id_that_cannot_be_sealed_still_logs_in_and_is_sealed_later() {
    let mine = Mine::new();
    let wrapped = shared().post_wrapped(&format!("auth/approle/role/{}/secret-id", mine.name), json!({}));
    let memory = wrapping(&mine, &wrapped);
    memory.full.store(true, Ordering::SeqCst);
    let vault = mine.vault(mine.approle(), &memory);
    vault.probe().await.unwrap();
    assert!(memory.get("vault-approle").contains("wrapping_token"));
    memory.full.store(false, Ordering::SeqCst);
    let seen = mine.proxy().seen();
    let used = seen.iter().rev().find_map(|seen| seen.header("x-vault-token")).unwrap();
    shared().post("auth/token/revoke", json!({ "token": used }));
    vault.probe().await.unwrap();
    assert!(!memory.get("vault-approle").contains("wrapping_token"));
}

#[tokio::test]
async fn a_fetched_secret_id_that_could_not_be_sealed_gives_way_to_one_that_was_sealed_meanwhile() {
    let mine = Mine::new();
    let wrapped = shared().post_wrapped(&format!("auth/approle/role/{}/secret-id", mine.name), json!({}));
    let memory = wrapping(&mine, &wrapped);
    memory.full.store(true, Ordering::SeqCst);
    let vault = mine.vault(mine.approle(), &memory);
    vault.probe().await.unwrap();
    memory.full.store(false, Ordering::SeqCst);
    let fresh = mine.credential(&mine.secret_id_that_serves(0)).get("vault-approle");
    memory.set("vault-approle", &fresh);
    let seen = mine.proxy().seen();
    let used = seen.iter().rev().find_map(|seen| seen.header("x-vault-token")).unwrap();
    shared().post("auth/token/revoke", json!({ "token": used }));
    vault.probe().await.unwrap();
    assert_eq!(memory.get("vault-approle"), fresh);
}

/// A secret id that serves so often, sealed.
fn counted(mine: &Mine, uses: u32) -> Arc<Memory> {
    mine.credential(&mine.secret_id_that_serves(uses))
}

/// Until the provider says something else than before, for as long as the pauses of a login are.
async fn until_it_says(mine: &Mine, kek: &dyn Kek, words: &str) -> nodeseal::provider::ProviderError {
    for _ in 0..100 {
        match kek.probe().await {
            Err(error) if shown(&error).contains(words) => {
                return refused(mine, Err::<(), _>(error), &[ErrorKind::Away, ErrorKind::Down, ErrorKind::Login]);
            }
            answer => drop(answer),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it never says {words}");
}

#[tokio::test]
async fn a_secret_id_whose_login_was_lost_is_tried_once_more_and_then_never_again_also_after_a_restart() {
    let mine = Mine::new();
    let memory = counted(&mine, 1);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("login-tries");
    let tries = || LoginTries::new(RunFile::open(&file));
    let (logins, restarted) =
        (|| mine.proxy().count("auth/approle/login"), |memory: &Memory| memory.after_a_restart(tries()));
    // Vault grants the login, and the answer stops in the middle.
    mine.proxy().set(Mode::Half);
    let first = restarted(&memory);
    let lost = until_it_says(&mine, &*mine.vault(mine.approle(), &first), "was lost").await;
    assert!(lost.hint().contains("seal a fresh secret id"), "{}", lost.hint());
    assert_eq!(logins(), 1);
    // The next process begins where this one ends: with a pause, and one more login.
    mine.proxy().set(Mode::Pass);
    let second = restarted(&memory);
    let vault = mine.vault(mine.approle(), &second);
    let spent = until_it_says(&mine, &*vault, "most likely spent").await;
    assert!(
        spent.kind() == ErrorKind::Login && spent.hint().contains("secret_id_num_uses=0"),
        "{spent} {}",
        spent.hint()
    );
    assert_eq!(logins(), 2);
    // And never again, by no process.
    let third = restarted(&memory);
    for vault in [vault, mine.vault(mine.approle(), &third)] {
        for _ in 0..20 {
            refused(&mine, vault.probe().await, &[ErrorKind::Login]);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    assert_eq!(logins(), 2);
    let written = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
    assert!(mine.canaries().iter().all(|canary| !written.contains(canary)));
    // A fresh one is taken up.
    let fresh = restarted(&memory);
    fresh.set("vault-approle", &counted(&mine, 0).get("vault-approle"));
    mine.vault(mine.approle(), &fresh).probe().await.unwrap();
}

#[tokio::test]
async fn a_wrapping_token_whose_answer_was_lost_is_said_to_be_spent_and_not_to_be_stolen() {
    let mine = Mine::new();
    let wrapped = shared().post_wrapped(&format!("auth/approle/role/{}/secret-id", mine.name), json!({}));
    let memory = wrapping(&mine, &wrapped);
    mine.proxy().change(|seen, mut given| {
        if seen.path().ends_with("/unwrap") {
            (given.status, given.body) = (502, "<html>".into());
        }
        given
    });
    let vault = mine.vault(mine.approle(), &memory);
    until_it_says(&mine, &*vault, "was lost").await;
    until_it_says(&mine, &*vault, "most likely spent").await;
    assert_eq!(mine.proxy().count("sys/wrapping/unwrap"), 1);
    let looked = mine.proxy().count("sys/wrapping/lookup");
    tokio::time::sleep(Duration::from_secs(2)).await;
    refused(&mine, vault.probe().await, &[ErrorKind::Login]);
    assert_eq!((looked, mine.proxy().count("sys/wrapping/lookup")), (2, 2));
}

#[tokio::test]
async fn a_secret_id_that_serves_more_than_once_survives_lost_answers_and_a_vault_that_is_away_costs_nothing() {
    let mine = Mine::new();
    let memory = counted(&mine, 0);
    let vault = mine.vault(mine.approle(), &memory);
    for mode in [Mode::Half, Mode::Reset] {
        mine.proxy().set(mode);
        refused(&mine, vault.probe().await, &[ErrorKind::Away]);
    }
    mine.proxy().set(Mode::Pass);
    let begun = std::time::Instant::now();
    while vault.probe().await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // A Vault that is sealed says so before it looks.
    let memory = counted(&mine, 0);
    let vault = mine.vault(mine.approle(), &memory);
    mine.proxy().change(|_, mut given| {
        given.status = 503;
        (given.kind, given.body) = ("application/json".into(), json!({ "errors": ["Vault is sealed"] }).to_string());
        given
    });
    for _ in 0..30 {
        let error = refused(&mine, vault.probe().await, &[ErrorKind::Down]);
        assert!(!shown(&error).contains("spent"), "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    mine.proxy().set(Mode::Pass);
    let begun = std::time::Instant::now();
    while vault.probe().await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Where nobody listens nothing is sent, so that nothing can be spent.
    let settings = VaultSettings { address: NOWHERE.parse().unwrap(), ..mine.settings(mine.approle()) };
    let one = counted(&mine, 1);
    let away = Vault::new(settings, one.clone());
    for _ in 0..5 {
        let error = refused(&mine, away.probe().await, &[ErrorKind::Away]);
        assert!(!shown(&error).contains("spent"), "{error}");
    }
    mine.vault(mine.approle(), &one).probe().await.unwrap();
}

#[tokio::test]
async fn a_secret_id_that_has_served_once_and_ends_says_so() {
    let mine = Mine::new();
    let memory = counted(&mine, 1);
    mine.vault(mine.approle(), &memory).probe().await.unwrap();
    // As another login of the same process would be: the first one's token was revoked.
    let error = refused(&mine, mine.vault(mine.approle(), &memory).probe().await, &[ErrorKind::Login]);
    assert!(error.hint().contains("it has logged in before"), "{}", error.hint());
}

/// A token that lives for ten minutes, with these claims beside its times.
pub fn jwt(key: &KeyPair, algorithm: &str, mut claims: Value) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let times = json!({ "iat": now, "nbf": now - 5, "exp": now + 600 });
    claims.as_object_mut().unwrap().extend(times.as_object().unwrap().clone());
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(json!({ "alg": algorithm, "typ": "JWT" })), part(claims));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}

#[tokio::test]
async fn a_token_file_is_read_at_each_login_also_through_a_swapped_link() {
    let mine = Mine::new();
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    shared().post("auth/jwt/config", json!({ "jwt_validation_pubkeys": [key.public_key_pem()] }));
    let role = json!({
        "role_type": "jwt", "user_claim": "sub", "bound_subject": "node-1", "bound_audiences": ["vault"],
        "token_policies": [&mine.name], "token_ttl": "1h"
    });
    shared().post(&format!("auth/jwt/role/{}", mine.name), role);
    let folder = tempfile::tempdir().unwrap();
    let (first, second, link) = (folder.path().join("1"), folder.path().join("2"), folder.path().join("token"));
    fs::write(&first, jwt(&key, "EdDSA", json!({ "sub": "node-2", "aud": "vault" }))).unwrap();
    fs::write(&second, jwt(&key, "EdDSA", json!({ "sub": "node-1", "aud": "vault" }))).unwrap();
    symlink(&first, &link).unwrap();
    let auth =
        VaultAuth::Jwt { mount: "jwt".parse().unwrap(), role: Some(mine.name.parse().unwrap()), file: link.clone() };
    let vault = mine.vault(auth, &Arc::default());
    let error = refused(&mine, vault.probe().await, &[ErrorKind::Login]);
    assert!(!error.to_string().contains(&fs::read_to_string(&first).unwrap()));
    let swapped = folder.path().join("swap");
    symlink(&second, &swapped).unwrap();
    fs::rename(&swapped, &link).unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    vault.probe().await.unwrap();
}

#[tokio::test]
async fn a_namespace_goes_with_every_request_and_into_the_identity() {
    let mine = Mine::new();
    let settings = VaultSettings { namespace: Some("team/a".parse().unwrap()), ..mine.settings(mine.approle()) };
    let vault = Vault::new(settings, mine.credential(&mine.secret_id));
    // This build has no namespaces and takes the header for nothing.
    let state = vault.probe().await.unwrap();
    assert!(state.identity.as_str().starts_with(&format!("team/a/{}/kubernetes@", mine.name)), "{}", state.identity);
    let seen = mine.proxy().seen();
    assert!(seen.len() >= 2 && seen.iter().all(|seen| seen.header("x-vault-namespace") == Some("team/a")));
}

#[tokio::test]
async fn a_node_whose_secret_id_has_ended_takes_the_login_from_no_other_one_of_its_role() {
    let mine = Mine::new();
    let memory = mine.credential(&mine.secret_id);
    // It has served more than once.
    for _ in 0..3 {
        mine.vault(mine.approle(), &memory).probe().await.unwrap();
    }
    let ended = mine.vault(mine.approle(), &memory);
    ended.probe().await.unwrap();
    let seen = mine.proxy().seen();
    let used = seen.iter().rev().find_map(|seen| seen.header("x-vault-token")).unwrap();
    let others = Memory::with("vault-approle", &mine.replace_secret_id());
    shared().post("auth/token/revoke", json!({ "token": used }));
    let keeping = tokio::spawn(ended.keep_login());
    for _ in 0..20 {
        let _ = ended.probe().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    keeping.abort();
    let refusals = mine.proxy().count("auth/approle/login");
    let other = mine.vault(mine.approle(), &others).probe().await;
    assert!(other.is_ok(), "after {refusals} logins of one node nobody of the role may log in: {:?}", other.err());
}
