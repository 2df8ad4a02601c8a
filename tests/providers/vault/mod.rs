//! HashiCorp Vault: the suite, its logins, and its certificates.

mod key;
mod kubernetes;
mod logins;
mod server;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use nodeseal::provider::Kek;
use nodeseal::provider::vault::{Roots, Vault, VaultAuth, VaultSettings};
use serde_json::json;

use crate::conformance::{self, Ground};
use crate::credentials::Memory;
use crate::proxy::Proxy;
use server::{Server, shared, unique};

/// A mount, a key, a policy and a role of its own on the shared server.
pub struct Mine {
    server: &'static Server,
    pub name: String,
    proxy: Proxy,
    pub role_id: String,
    pub secret_id: String,
}

impl Mine {
    pub fn new() -> Self {
        Self::of_type(json!({ "type": "aes256-gcm96" }))
    }

    pub fn of_type(key: serde_json::Value) -> Self {
        let server = shared();
        let name = unique();
        server.post(&format!("sys/mounts/{name}"), json!({ "type": "transit" }));
        server.post(&format!("{name}/keys/kubernetes"), key);
        server.allow(&name, &["encrypt", "decrypt", "keys"]);
        let role = format!("auth/approle/role/{name}");
        server.post(&role, json!({ "token_policies": [&name], "token_ttl": "1h", "token_max_ttl": "24h" }));
        let text = |answer: serde_json::Value, field: &str| answer["data"][field].as_str().unwrap().to_owned();
        let role_id = text(server.get(&format!("{role}/role-id")), "role_id");
        let secret_id = text(server.post(&format!("{role}/secret-id"), json!({})), "secret_id");
        Self { server, name, proxy: Proxy::before(server.plain()), role_id, secret_id }
    }

    /// For a whole node, which `rooted` alone makes.
    #[cfg(feature = "tpm2")]
    pub fn url(&self) -> String {
        self.proxy.url()
    }

    /// Another secret id; the first is of no use any more, nor is any login that was made with it.
    #[cfg(feature = "tpm2")]
    pub fn replace_secret_id(&self) -> String {
        let role = format!("auth/approle/role/{}", self.name);
        let made = self.server.post(&format!("{role}/secret-id"), json!({}));
        let secret_id = made["data"]["secret_id"].as_str().unwrap();
        self.server.post(&format!("{role}/secret-id/destroy"), json!({ "secret_id": self.secret_id }));
        json!({ "role_id": self.role_id, "secret_id": secret_id }).to_string()
    }

    pub fn settings(&self, auth: VaultAuth) -> VaultSettings {
        VaultSettings {
            address: self.proxy.url().parse().unwrap(),
            namespace: None,
            mount: self.name.parse().unwrap(),
            key: "kubernetes".parse().unwrap(),
            created: None,
            auth,
            roots: Roots::System,
            timeout: conformance::TIMEOUT,
        }
    }

    pub fn approle(&self) -> VaultAuth {
        VaultAuth::AppRole {
            mount: "approle".parse().unwrap(),
            role: Some(self.name.parse().unwrap()),
            credential: "vault-approle".into(),
        }
    }

    pub fn vault(&self, auth: VaultAuth, memory: &Arc<Memory>) -> Arc<Vault> {
        Arc::new(Vault::new(self.settings(auth), memory.clone()))
    }

    pub fn credential(&self, secret_id: &str) -> Arc<Memory> {
        let text = json!({ "role_id": self.role_id, "secret_id": secret_id }).to_string();
        Memory::with("vault-approle", &text)
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
