//! Each method of logging in, what replaces a login, and what a login must not do.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use nodeseal::provider::azure::{AzureAuth, AzureKek, AzureSettings, TrustAnchors};
use nodeseal::provider::{ErrorKind, Kek};
use nodeseal::types::Key;
use serde_json::json;

use super::{CLIENT, Mine, ROLE, SECRET, SUBJECT};
use crate::conformance::{Ground, Of, refused, shown};
use crate::credentials::Memory;

async fn round_trip(kek: &dyn Kek) {
    let (key, of) = (Key::random().unwrap(), Of::new("prod", 1));
    let wrapped = kek.wrap_key(&key, of.context()).await.unwrap();
    assert_eq!(kek.unwrap_key(&wrapped, of.context()).await.unwrap().expose(), key.expose());
}

/// With TLS, as outside of tests.
fn over_tls(mine: &Mine, auth: AzureAuth) -> AzureSettings {
    let address = mine.server.tls().parse().unwrap();
    let authority = mine.server.tls().parse().unwrap();
    let roots = TrustAnchors::File(mine.server.ca_file());
    AzureSettings { vault: address, authority: Some(authority), roots, ..mine.settings(auth) }
}

fn by_certificate(mine: &Mine) -> AzureAuth {
    AzureAuth::ClientCertificate {
        tenant: mine.server.tenant().parse().unwrap(),
        client: CLIENT.parse().unwrap(),
        credential: "azure-certificate".parse().unwrap(),
    }
}

#[tokio::test]
async fn a_secret_logs_in_over_tls_and_a_peer_that_does_not_prove_itself_gets_none() {
    let mine = Mine::rsa();
    let memory = Memory::with("azure-secret", &format!("{SECRET}\n"));
    let good = over_tls(&mine, mine.by_secret());
    round_trip(&AzureKek::open(good.clone(), memory.clone()).unwrap()).await;
    let port = good.vault.to_string().rsplit(':').next().unwrap().to_owned();
    let other_name = format!("https://localhost:{port}").parse().unwrap();
    for (settings, kind) in [
        (AzureSettings { roots: TrustAnchors::System, ..good.clone() }, ErrorKind::Peer),
        (AzureSettings { authority: Some(other_name), ..good.clone() }, ErrorKind::Peer),
        (
            AzureSettings { vault: format!("https://{}", mine.server.plain()).parse().unwrap(), ..good.clone() },
            ErrorKind::Protocol,
        ),
    ] {
        refused(&mine, AzureKek::open(settings, memory.clone()).unwrap().probe().await, &[kind]);
    }
    let nowhere = AzureSettings { roots: TrustAnchors::File("nowhere.pem".into()), ..good };
    assert_eq!(AzureKek::open(nowhere, memory).err().unwrap().kind(), ErrorKind::Unfit);
}

#[tokio::test]
async fn a_certificate_logs_in_and_another_one_does_not() {
    let mine = Mine::rsa();
    let pem = |client: &str| {
        mine.server.door("certificate", &json!({ "client": client }))["pem"].as_str().unwrap().to_owned()
    };
    let memory = Memory::with("azure-certificate", &pem(CLIENT));
    for settings in [over_tls(&mine, by_certificate(&mine)), mine.settings(by_certificate(&mine))] {
        round_trip(&AzureKek::open(settings, memory.clone()).unwrap()).await;
    }
    memory.set("azure-certificate", &pem("somebody-else"));
    let error = refused(&mine, mine.azure(by_certificate(&mine), &memory).probe().await, &[ErrorKind::Login]);
    assert!(error.to_string().contains("AADSTS700027"), "{error}");
    let elliptic = rcgen::generate_simple_self_signed(vec!["nodeseal".into()]).unwrap();
    let elliptic = elliptic.cert.pem() + &elliptic.signing_key.serialize_pem();
    for (text, words) in [("CANARY and no certificate", "azure-certificate"), (&elliptic, "azure-certificate")] {
        memory.set("azure-certificate", text);
        let error = refused(&mine, mine.azure(by_certificate(&mine), &memory).probe().await, &[ErrorKind::Login]);
        assert!(error.to_string().contains(words) && !shown(&error).contains("CANARY"), "{error}");
    }
}

#[tokio::test]
async fn a_federated_token_is_read_at_each_login() {
    let mine = Mine::rsa();
    mine.server.door("client", &json!({ "client": CLIENT, "subject": SUBJECT }));
    let token = |subject: &str| {
        let made = mine.server.door("service-account-token", &json!({ "subject": subject }));
        made["token"].as_str().unwrap().to_owned()
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    let auth = || AzureAuth::WorkloadIdentity {
        tenant: mine.server.tenant().parse().unwrap(),
        client: CLIENT.parse().unwrap(),
        token_file: file.path().to_owned(),
    };
    let memory = Arc::new(Memory::default());
    let foreign = token("system:serviceaccount:default:default");
    fs::write(file.path(), &foreign).unwrap();
    let kek = mine.azure(auth(), &memory);
    let error = refused(&mine, kek.probe().await, &[ErrorKind::Login]);
    assert!(error.to_string().contains("AADSTS70021") && !shown(&error).contains(&foreign), "{error}");
    fs::write(file.path(), token(SUBJECT) + "\n").unwrap();
    round_trip(&*mine.azure(auth(), &memory)).await;
    // The same provider too, after its pause.
    tokio::time::sleep(Duration::from_millis(600)).await;
    round_trip(&*kek).await;
}

#[tokio::test]
async fn a_machine_logs_in_as_what_it_is() {
    let mine = Mine::rsa();
    for client in ["machine", "second"] {
        mine.server.door("client", &json!({ "client": client, "managed": client == "machine", "rights": ROLE }));
    }
    let auth = |client: Option<&str>| AzureAuth::ManagedIdentity {
        client: client.map(|client| client.parse().unwrap()),
        endpoint: Some(mine.proxy().url().parse().unwrap()),
    };
    let memory = Arc::new(Memory::default());
    round_trip(&*mine.azure(auth(None), &memory)).await;
    round_trip(&*mine.azure(auth(Some("machine")), &memory)).await;
    let asked = mine.proxy().seen().into_iter().find(|seen| seen.path().starts_with("/metadata/")).unwrap();
    assert_eq!(asked.header("metadata"), Some("true"));
    let error = refused(&mine, mine.azure(auth(Some("second")), &memory).probe().await, &[ErrorKind::Login]);
    assert!(error.to_string().contains("Identity not found"), "{error}");
}

#[tokio::test]
async fn a_token_that_was_revoked_is_replaced_within_the_call_by_the_credential_as_it_is_now() {
    let mine = Mine::rsa();
    let memory = Memory::with("azure-secret", SECRET);
    let kek = mine.azure(mine.by_secret(), &memory);
    round_trip(&*kek).await;
    mine.server.door("client", &json!({ "client": CLIENT, "secret": "CANARY.second-secret" }));
    mine.server.door("revoke", &json!({}));
    memory.set("azure-secret", "CANARY.second-secret");
    round_trip(&*kek).await;
    assert_eq!(mine.proxy().count("/oauth2/v2.0/token"), 2);
    // When that one goes as well, and nothing better is sealed, it is the login that is refused.
    mine.server.door("client", &json!({ "client": CLIENT, "secret": "a third" }));
    mine.server.door("revoke", &json!({}));
    let error = refused(&mine, kek.probe().await, &[ErrorKind::Login]);
    assert!(!shown(&error).contains("CANARY"), "{error}");
}

#[tokio::test]
async fn many_calls_make_one_login_and_neither_a_denied_right_nor_a_refused_login_makes_a_storm() {
    let mine = Mine::rsa();
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
    assert_eq!(mine.proxy().count("/oauth2/v2.0/token"), 1);
    let stranger = mine.stranger();
    for _ in 0..50 {
        refused(&mine, stranger.probe().await, &[ErrorKind::Login]);
    }
    assert!(mine.proxy().count("/oauth2/v2.0/token") <= 5);
}

#[tokio::test]
async fn a_login_is_replaced_before_it_ends_and_serves_on_while_the_authority_is_away() {
    let mine = Mine::rsa();
    mine.server.door("lifetime", &json!({ "seconds": 6 }));
    let kek = mine.kek();
    for _ in 0..40 {
        kek.probe().await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let logins = mine.proxy().count("/oauth2/v2.0/token");
    assert!((3..=6).contains(&logins), "{logins}");
    mine.proxy().change(|seen, mut given| {
        if seen.path().contains("/oauth2/") {
            (given.status, given.body) = (503, "<html>".into());
        }
        given
    });
    for _ in 0..10 {
        kek.probe().await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    refused(&mine, kek.probe().await, &[ErrorKind::Down]);
}
