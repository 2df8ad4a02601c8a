//! Azure Key Vault and Managed HSM: what Microsoft's clients take for it, the suite with both algorithms, logins, keys, and answers that lie.

mod keys;
mod lies;
mod log;
mod logins;
mod server;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nodeseal::provider::Kek;
use nodeseal::provider::azure::{Algorithm, AzureAuth, AzureKek, AzureSettings, TrustAnchors};
use serde_json::{Value, json};
use test_support::proxy::{Proxy, Seen};

use self::server::Server;
use crate::conformance::{self, Ground};
use crate::credentials::Memory;

pub const CLIENT: &str = "22222222-3333-4444-5555-666666666666";
/// Of a federated token.
pub const SUBJECT: &str = "system:serviceaccount:kube-system:nodeseal";
const SECRET: &str = "CANARY~secret.of.the-application";
/// What the role "Key Vault Crypto Service Encryption User" gives.
const ROLE: [&str; 3] = ["read", "wrap/action", "unwrap/action"];

/// A server, a key and an application of its own.
pub struct Mine {
    server: Server,
    proxy: Proxy,
    algorithm: Algorithm,
}

impl Mine {
    pub fn rsa() -> Self {
        Self::of(Algorithm::RsaOaep256)
    }

    pub fn aes() -> Self {
        Self::of(Algorithm::A256Kw)
    }

    fn of(algorithm: Algorithm) -> Self {
        let server = Server::start();
        server.door("client", &json!({ "client": CLIENT, "secret": SECRET, "rights": ROLE }));
        let proxy = Proxy::before(server.plain());
        let mine = Self { server, proxy, algorithm };
        mine.create();
        mine
    }

    fn create(&self) {
        let kind = match self.algorithm {
            Algorithm::RsaOaep256 => json!({ "kty": "RSA", "key_size": 2048 }),
            Algorithm::A256Kw => json!({ "kty": "oct-HSM", "key_size": 256 }),
        };
        self.server.keys("POST", "keys/kubernetes/create", &kind);
    }

    pub fn settings(&self, auth: AzureAuth) -> AzureSettings {
        AzureSettings {
            vault: self.proxy.url().parse().unwrap(),
            key: "kubernetes".parse().unwrap(),
            algorithm: self.algorithm,
            auth,
            authority: Some(self.proxy.url().parse().unwrap()),
            resource: Some(self.server.resource().parse().unwrap()),
            roots: TrustAnchors::System,
            timeout: conformance::TIMEOUT,
        }
    }

    pub fn by_secret(&self) -> AzureAuth {
        AzureAuth::ClientSecret {
            tenant: self.server.tenant().parse().unwrap(),
            client: CLIENT.parse().unwrap(),
            credential: "azure-secret".parse().unwrap(),
        }
    }

    pub fn azure(&self, auth: AzureAuth, memory: &Arc<Memory>) -> Arc<AzureKek> {
        Arc::new(AzureKek::open(self.settings(auth), memory.clone()).unwrap())
    }

    /// All versions of the key, as the service lists them.
    fn versions(&self) -> Vec<String> {
        let listed = self.server.keys("GET", "keys/kubernetes/versions", &Value::Null);
        let id = |row: &Value| row["kid"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        listed["value"].as_array().unwrap().iter().map(id).collect()
    }

    fn enable(&self, version: &str, enabled: bool) {
        let body = json!({ "attributes": { "enabled": enabled } });
        self.server.keys("PATCH", &format!("keys/kubernetes/{version}"), &body);
    }
}

impl Ground for Mine {
    fn kek_within(&self, timeout: Duration) -> Arc<dyn Kek> {
        let settings = AzureSettings { timeout, ..self.settings(self.by_secret()) };
        Arc::new(AzureKek::open(settings, Memory::with("azure-secret", SECRET)).unwrap())
    }

    fn stranger(&self) -> Arc<dyn Kek> {
        self.azure(self.by_secret(), &Memory::with("azure-secret", "another secret"))
    }

    fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    fn rotate(&self) {
        self.server.keys("POST", "keys/kubernetes/rotate", &json!({}));
    }

    fn disable(&self) {
        self.versions().iter().for_each(|version| self.enable(version, false));
    }

    fn restore(&self) {
        self.versions().iter().for_each(|version| self.enable(version, true));
    }

    fn delete_and_recreate(&self) {
        self.server.keys("DELETE", "keys/kubernetes", &Value::Null);
        self.server.keys("DELETE", "deletedkeys/kubernetes", &Value::Null);
        // Azure tells when a version was made to the second.
        std::thread::sleep(Duration::from_millis(1100));
        self.create();
    }

    fn deny(&self) {
        self.server.door("client", &json!({ "client": CLIENT, "rights": [] }));
    }

    fn allow(&self) {
        self.server.door("client", &json!({ "client": CLIENT, "rights": ROLE }));
    }

    fn kek_away(&self) -> Arc<dyn Kek> {
        let nowhere = || conformance::NOWHERE.parse().unwrap();
        let settings =
            AzureSettings { vault: nowhere(), authority: Some(nowhere()), ..self.settings(self.by_secret()) };
        Arc::new(AzureKek::open(settings, Memory::with("azure-secret", SECRET)).unwrap())
    }

    fn kek_at(&self, url: &str, roots: &Path, timeout: Duration) -> Arc<dyn Kek> {
        let settings = AzureSettings {
            vault: url.parse().unwrap(),
            authority: Some(url.parse().unwrap()),
            roots: TrustAnchors::File(roots.to_owned()),
            timeout,
            ..self.settings(self.by_secret())
        };
        Arc::new(AzureKek::open(settings, Memory::with("azure-secret", SECRET)).unwrap())
    }

    fn kek_by_token_file(&self, file: &Path) -> Arc<dyn Kek> {
        let auth = AzureAuth::WorkloadIdentity {
            tenant: self.server.tenant().parse().unwrap(),
            client: CLIENT.parse().unwrap(),
            token_file: file.to_owned(),
        };
        self.azure(auth, &Arc::default())
    }

    fn fresh_token(&self) -> String {
        self.server.door("client", &json!({ "client": CLIENT, "subject": SUBJECT }));
        let made = self.server.door("service-account-token", &json!({ "subject": SUBJECT }));
        made["token"].as_str().unwrap().to_owned()
    }

    fn is_login(seen: &Seen) -> bool {
        seen.path().contains("/oauth2/")
    }

    fn binds(&self) -> bool {
        false
    }

    fn canaries(&self) -> Vec<String> {
        let sent = self.proxy.seen();
        let tokens = sent.iter().filter_map(|seen| Some(seen.header("authorization")?.replace("Bearer ", "")));
        let plain = sent.iter().filter(|seen| Self::is_wrap(seen.path())).filter_map(|seen| {
            let body: Value = serde_json::from_str(&seen.body).ok()?;
            Some(body["value"].as_str()?.to_owned())
        });
        tokens.chain(plain).chain([SECRET.to_owned()]).collect()
    }

    fn is_wrap(path: &str) -> bool {
        path.contains("/wrapkey")
    }
}

#[test]
fn microsofts_own_clients_take_the_server_for_azure() {
    let server = Server::start();
    let output = server.microsofts_clients();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("accepted"), "{}", String::from_utf8_lossy(&output.stderr));
}

mod rsa {
    crate::conformance::suite!(super::Mine::rsa());
}

mod aes {
    crate::conformance::suite!(super::Mine::aes());
}
