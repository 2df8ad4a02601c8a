//! HashiCorp Vault: the suite, its logins, and its certificates.

mod key;
mod kubernetes;
mod logins;
mod server;
mod setup;
mod tls;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nodeseal::provider::Kek;
use nodeseal::provider::vault::{TrustAnchors, Vault, VaultAuth, VaultSettings};
use rcgen::KeyPair;
use serde_json::json;

use crate::conformance::{self, Ground};
use crate::credentials::Memory;
use server::{Server, shared, unique};
use test_support::proxy::{Proxy, Seen};

/// A mount, a key, a policy and a role of its own on the shared server.
pub struct Mine {
    server: &'static Server,
    pub name: String,
    proxy: Proxy,
    pub role_id: String,
    pub secret_id: String,
    issuer: OnceLock<KeyPair>,
}

/// What the policy of docs/providers/vault.md gives.
const RIGHTS: [&str; 3] = ["encrypt", "decrypt", "keys"];

impl Mine {
    pub fn new() -> Self {
        Self::of_type(json!({ "type": "aes256-gcm96" }))
    }

    pub fn of_type(key: serde_json::Value) -> Self {
        let server = shared();
        let name = unique();
        server.post(&format!("sys/mounts/{name}"), json!({ "type": "transit" }));
        server.post(&format!("{name}/keys/kubernetes"), key);
        server.allow(&name, &RIGHTS);
        let role = format!("auth/approle/role/{name}");
        server.post(&role, json!({ "token_policies": [&name], "token_ttl": "1h", "token_max_ttl": "24h" }));
        let text = |answer: serde_json::Value, field: &str| answer["data"][field].as_str().unwrap().to_owned();
        let role_id = text(server.get(&format!("{role}/role-id")), "role_id");
        let secret_id = text(server.post(&format!("{role}/secret-id"), json!({})), "secret_id");
        Self { server, name, proxy: Proxy::before(server.plain()), role_id, secret_id, issuer: OnceLock::new() }
    }

    /// For a whole node, which `rooted` alone makes.
    pub fn url(&self) -> String {
        self.proxy.url()
    }

    /// Another secret id; the first is of no use any more, nor is any login that was made with it.
    pub fn replace_secret_id(&self) -> String {
        let role = format!("auth/approle/role/{}", self.name);
        let made = self.server.post(&format!("{role}/secret-id"), json!({}));
        let secret_id = made["data"]["secret_id"].as_str().unwrap();
        self.server.post(&format!("{role}/secret-id/destroy"), json!({ "secret_id": self.secret_id }));
        json!({ "role_id": self.role_id, "secret_id": secret_id }).to_string()
    }

    /// What is sealed of a wrapped secret id that is good for one login.
    pub fn wrapped_login_that_serves_once(&self) -> String {
        let path = format!("auth/approle/role/{}/secret-id", self.name);
        let token = self.server.post_wrapped(&path, json!({ "num_uses": 1 }));
        json!({ "role_id": self.role_id, "wrapping_token": token }).to_string()
    }

    /// What is sealed of another role, which may do this.
    pub fn login_that_may(&self, rights: &[&str]) -> String {
        let name = unique();
        self.server.allow_on(&name, &self.name, rights);
        let role = format!("auth/approle/role/{name}");
        self.server.post(&role, json!({ "token_policies": [&name], "token_ttl": "1h" }));
        let text = |answer: serde_json::Value, field: &str| answer["data"][field].as_str().unwrap().to_owned();
        let role_id = text(self.server.get(&format!("{role}/role-id")), "role_id");
        let secret_id = text(self.server.post(&format!("{role}/secret-id"), json!({})), "secret_id");
        json!({ "role_id": role_id, "secret_id": secret_id }).to_string()
    }

    /// From now on logins of this role may do no more than this.
    pub fn allow(&self, rights: &[&str]) {
        self.server.allow(&self.name, rights);
    }

    pub fn settings(&self, auth: VaultAuth) -> VaultSettings {
        VaultSettings {
            address: self.proxy.url().parse().unwrap(),
            namespace: None,
            mount: self.name.parse().unwrap(),
            key: "kubernetes".parse().unwrap(),
            created: None,
            auth,
            roots: TrustAnchors::System,
            timeout: conformance::TIMEOUT,
        }
    }

    pub fn approle(&self) -> VaultAuth {
        VaultAuth::AppRole {
            mount: "approle".parse().unwrap(),
            role: Some(self.name.parse().unwrap()),
            credential: "vault-approle".parse().unwrap(),
        }
    }

    pub fn vault(&self, auth: VaultAuth, memory: &Arc<Memory>) -> Arc<Vault> {
        Arc::new(Vault::new(self.settings(auth), memory.clone()))
    }

    pub fn credential(&self, secret_id: &str) -> Arc<Memory> {
        let text = json!({ "role_id": self.role_id, "secret_id": secret_id }).to_string();
        Memory::with("vault-approle", &text)
    }

    /// Whose tokens log in at a mount of our name.
    fn issuer(&self) -> &KeyPair {
        self.issuer.get_or_init(|| {
            let (name, key) = (&self.name, KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap());
            self.server.post(&format!("sys/auth/{name}"), json!({ "type": "jwt" }));
            let config = json!({ "jwt_validation_pubkeys": [key.public_key_pem()] });
            self.server.post(&format!("auth/{name}/config"), config);
            let role = json!({
                "role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"], "token_policies": [name],
                "token_ttl": "1h"
            });
            self.server.post(&format!("auth/{name}/role/{name}"), role);
            key
        })
    }

    /// Another secret id, for so many logins.
    pub fn secret_id_that_serves(&self, uses: u32) -> String {
        let path = format!("auth/approle/role/{}/secret-id", self.name);
        self.server.post(&path, json!({ "num_uses": uses }))["data"]["secret_id"].as_str().unwrap().to_owned()
    }

    fn configure(&self, settings: serde_json::Value) {
        self.server.post(&format!("{}/keys/kubernetes/config", self.name), settings);
    }
}

impl Ground for Mine {
    fn kek_within(&self, timeout: Duration) -> Arc<dyn Kek> {
        let settings = VaultSettings { timeout, ..self.settings(self.approle()) };
        Arc::new(Vault::new(settings, self.credential(&self.secret_id)))
    }

    fn stranger(&self) -> Arc<dyn Kek> {
        self.vault(self.approle(), &self.credential("00000000-0000-0000-0000-000000000000"))
    }

    fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    fn rotate(&self) {
        self.server.post(&format!("{}/keys/kubernetes/rotate", self.name), json!({}));
    }

    fn disable(&self) {
        self.rotate();
        self.configure(json!({ "min_decryption_version": 2 }));
    }

    fn restore(&self) {
        self.configure(json!({ "min_decryption_version": 1 }));
    }

    fn delete_and_recreate(&self) {
        self.configure(json!({ "deletion_allowed": true }));
        self.server.delete(&format!("{}/keys/kubernetes", self.name));
        // Vault tells when a version was made to the second.
        std::thread::sleep(Duration::from_millis(1100));
        self.server.post(&format!("{}/keys/kubernetes", self.name), json!({ "type": "aes256-gcm96" }));
    }

    fn deny(&self) {
        self.server.allow(&self.name, &[]);
    }

    fn allow(&self) {
        self.server.allow(&self.name, &RIGHTS);
    }

    fn kek_away(&self) -> Arc<dyn Kek> {
        let settings =
            VaultSettings { address: conformance::NOWHERE.parse().unwrap(), ..self.settings(self.approle()) };
        Arc::new(Vault::new(settings, self.credential(&self.secret_id)))
    }

    fn kek_at(&self, url: &str, roots: &Path, timeout: Duration) -> Arc<dyn Kek> {
        let (address, roots) = (url.parse().unwrap(), TrustAnchors::File(roots.to_owned()));
        let settings = VaultSettings { address, roots, timeout, ..self.settings(self.approle()) };
        Arc::new(Vault::new(settings, self.credential(&self.secret_id)))
    }

    fn kek_by_token_file(&self, file: &Path) -> Arc<dyn Kek> {
        self.issuer();
        let name = || self.name.parse().unwrap();
        let auth = VaultAuth::Jwt { mount: self.name.parse().unwrap(), role: Some(name()), file: file.to_owned() };
        self.vault(auth, &Arc::default())
    }

    fn fresh_token(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let id = NUMBER.fetch_add(1, Ordering::Relaxed);
        logins::jwt(self.issuer(), "EdDSA", json!({ "sub": "node-1", "aud": "vault", "jti": id.to_string() }))
    }

    fn is_login(seen: &Seen) -> bool {
        seen.path().ends_with("/login")
    }

    fn binds(&self) -> bool {
        true
    }

    fn canaries(&self) -> Vec<String> {
        let sent = self.proxy.seen();
        let tokens = sent.iter().filter_map(|seen| seen.header("x-vault-token").map(str::to_owned));
        let plain = sent.iter().filter_map(|seen| {
            let body: serde_json::Value = serde_json::from_str(&seen.body).ok()?;
            Some(body["plaintext"].as_str()?.to_owned())
        });
        tokens.chain(plain).chain([self.secret_id.clone(), self.role_id.clone()]).collect()
    }

    fn is_wrap(path: &str) -> bool {
        path.contains("/encrypt/")
    }
}

conformance::suite!(super::vault::Mine::new());
