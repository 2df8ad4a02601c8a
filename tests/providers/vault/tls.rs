//! A certificate authority of the tests, and what can be wrong with a certificate.

use std::time::Duration;

use nodeseal::provider::vault::{TrustAnchors, Vault, VaultAuth, VaultSettings};
use nodeseal::provider::{Ends, ErrorKind, Kek};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};
use serde_json::json;

use super::Mine;
use super::server::shared;
use crate::conformance::{Of, refused};
use crate::credentials::Memory;

#[derive(Clone, Copy)]
pub enum Trouble {
    None = 0,
    Expired = 1,
    OtherName = 2,
}

pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self, params: &CertificateParams) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Certificate and key of a server on 127.0.0.1.
    pub fn server(&self, trouble: Trouble) -> (String, String) {
        let name = if matches!(trouble, Trouble::OtherName) { "vault.example" } else { "127.0.0.1" };
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        if matches!(trouble, Trouble::Expired) {
            (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        }
        self.issue(&params)
    }

    /// Certificate and key of a client, in one text.
    pub fn client(&self, name: &str) -> String {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let (certificate, key) = self.issue(&params);
        certificate + &key
    }
}

fn settings(mine: &Mine, trouble: Trouble, auth: VaultAuth) -> VaultSettings {
    let address = shared().tls(trouble).parse().unwrap();
    VaultSettings { address, roots: TrustAnchors::File(shared().ca_file()), ..mine.settings(auth) }
}

#[tokio::test]
async fn a_peer_that_does_not_prove_itself_is_refused_and_gets_no_credential() {
    let mine = Mine::new();
    let memory = || mine.credential(&mine.secret_id);
    let good = settings(&mine, Trouble::None, mine.approle());
    let vault = Vault::new(good.clone(), memory());
    assert_eq!(vault.ends(), Ends::default(), "nothing was shown yet");
    vault.probe().await.unwrap();
    // What rcgen makes ends in the year 4096.
    let shown = vault.ends().certificate.unwrap();
    assert!(vault.ends().login.is_some() && shown > Duration::from_secs(2000 * 365 * 86_400), "{shown:?}");

    let other = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(other.path(), Authority::new().pem()).unwrap();
    let plain = format!("https://{}", shared().plain()).parse().unwrap();
    for (settings, kind) in [
        (settings(&mine, Trouble::Expired, mine.approle()), ErrorKind::Peer),
        (settings(&mine, Trouble::OtherName, mine.approle()), ErrorKind::Peer),
        (VaultSettings { roots: TrustAnchors::File(other.path().to_owned()), ..good.clone() }, ErrorKind::Peer),
        (VaultSettings { roots: TrustAnchors::System, ..good.clone() }, ErrorKind::Peer),
        (VaultSettings { roots: TrustAnchors::File("nowhere.pem".into()), ..good.clone() }, ErrorKind::Unfit),
        (VaultSettings { address: plain, ..good.clone() }, ErrorKind::Protocol),
    ] {
        refused(&mine, Vault::new(settings, memory()).probe().await, &[kind]);
    }
}

#[tokio::test]
async fn a_client_certificate_logs_in_and_its_token_is_renewed_with_it() {
    let mine = Mine::new();
    let clients = Authority::new();
    let role = json!({ "certificate": clients.pem(), "token_policies": [&mine.name], "token_ttl": "4s", "token_max_ttl": "1h" });
    shared().post(&format!("auth/cert/certs/{}", mine.name), role);
    let auth = VaultAuth::Certificate {
        mount: "cert".parse().unwrap(),
        role: Some(mine.name.parse().unwrap()),
        credential: "vault-certificate".parse().unwrap(),
    };
    let memory = Memory::with("vault-certificate", &clients.client("node-1"));
    let vault = Vault::new(settings(&mine, Trouble::None, auth.clone()), memory.clone());
    let keeping = tokio::spawn(vault.keep_login());
    let (key, of) = (nodeseal::types::Key::random().unwrap(), Of::new("prod", 1));
    let wrapped = vault.wrap_key(&key, of.context()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(vault.unwrap_key(&wrapped, of.context()).await.unwrap().expose(), key.expose());
    keeping.abort();

    memory.set("vault-certificate", &Authority::new().client("node-1"));
    refused(
        &mine,
        Vault::new(settings(&mine, Trouble::None, auth.clone()), memory.clone()).probe().await,
        &[ErrorKind::Login],
    );
    memory.set("vault-certificate", "CANARY and no certificate");
    let error =
        refused(&mine, Vault::new(settings(&mine, Trouble::None, auth), memory).probe().await, &[ErrorKind::Login]);
    assert!(!crate::conformance::shown(&error).contains("CANARY"));
}
