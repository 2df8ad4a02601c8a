//! What a provider stands on in these tests: settings, credentials that can be replaced, and the local KEK's side of a wrap.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nodeseal::provider::aws::{AwsAuth, AwsKek, AwsSettings};
use nodeseal::provider::{Context, CredentialAnswer, Credentials, Kek, Mark};
use nodeseal::types::{ClusterId, CredentialName, KekId, Key, Secret};
use serde_json::json;
pub use test_support::runtime::run;

use super::moto::REGION;

/// Generous: several servers in Python share this machine.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Sealed credentials by name.
#[derive(Default)]
pub struct Sealed(Mutex<HashMap<String, Vec<u8>>>);

impl Sealed {
    pub fn with(name: &str, id: &str, key: &str) -> Arc<Self> {
        let sealed = Arc::new(Self::default());
        sealed.put(name, id, key);
        sealed
    }

    pub fn put(&self, name: &str, id: &str, key: &str) {
        let text = json!({"access_key_id": id, "secret_access_key": key}).to_string();
        self.put_raw(name, &text);
    }

    pub fn put_raw(&self, name: &str, text: &str) {
        self.0.lock().unwrap().insert(name.to_owned(), text.as_bytes().to_vec());
    }
}

impl Credentials for Sealed {
    fn open<'a>(&'a self, name: &'a CredentialName) -> CredentialAnswer<'a, (Secret, Mark)> {
        let found =
            self.0.lock().unwrap().get(name.as_str()).map(|text| (Secret::copy_of(text), Mark::new([0; Mark::BYTES])));
        Box::pin(async move { found.ok_or_else(|| "there is none of this name".into()) })
    }

    #[cfg(feature = "vault")]
    fn tries(&self) -> &nodeseal::provider::LoginTries {
        panic!("AWS has no login that serves once")
    }

    fn replace<'a>(&'a self, _: &'a CredentialName, _: Mark, _: &'a Secret) -> CredentialAnswer<'a, ()> {
        Box::pin(async { Err("AWS replaces nothing".into()) })
    }
}

/// Static keys that nobody checks.
pub fn anybody() -> Arc<Sealed> {
    Sealed::with("keys", "AKIAANYBODY", "anything")
}

pub fn static_keys() -> AwsAuth {
    AwsAuth::Static { credential: "keys".parse().unwrap() }
}

/// Everything goes to this one server.
pub fn settings(endpoint: &str, key: &str, auth: AwsAuth) -> AwsSettings {
    AwsSettings {
        key: key.parse().unwrap(),
        region: REGION.into(),
        endpoint: Some(endpoint.parse().unwrap()),
        sts_endpoint: Some(endpoint.parse().unwrap()),
        auth,
        ca_file: None,
        timeout: LIMIT,
    }
}

/// With static keys that nobody checks.
pub fn open(endpoint: &str, key: &str) -> AwsKek {
    AwsKek::open(settings(endpoint, key, static_keys()), anybody()).unwrap()
}

/// The local side of one wrap.
pub struct Local {
    pub cluster: ClusterId,
    pub kek: KekId,
    pub key: Key,
}

impl Local {
    pub fn new(cluster: &str, kek: u8) -> Self {
        let key = Key::random().unwrap();
        Self { cluster: cluster.parse().unwrap(), kek: KekId::from_bytes([kek; 16]), key }
    }

    pub fn context(&self) -> Context<'_> {
        Context { cluster: &self.cluster, kek: &self.kek }
    }

    /// Wraps and opens again.
    pub async fn round_trip(&self, provider: &dyn Kek) -> nodeseal::provider::Wrapped {
        let wrapped = provider.wrap_key(&self.key, self.context()).await.unwrap();
        let opened = provider.unwrap_key(&wrapped, self.context()).await.unwrap();
        assert!(opened.expose() == self.key.expose());
        wrapped
    }
}
