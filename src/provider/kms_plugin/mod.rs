//! Another KMS plugin of Kubernetes on a unix socket as root of trust: bring your own provider. Speaks KMS v2 and KMS v1beta1.
//!
//! **Identity** is the name that the operator gives the key, the same on all nodes: a plugin tells none. That the same name means the
//! same key everywhere, and never another one later, is the operator's promise.
//!
//! **Version** is the plugin's key_id, or its SHA-256 where it is no version of ours (too long, or with other characters than visible
//! ASCII). KMS v1beta1 has none: `unversioned`.
//!
//! A plugin has no associated data, so a text is bound by its plaintext, `key ‖ HMAC-SHA256(key, label ‖ cluster ‖ KEK id)`: it opens for its own
//! cluster and KEK only, whatever the plugin's own encryption is worth. Text, key_id and annotations are stored and given back as they came.
//!
//! Refuses a listener that is neither root's nor our own nor of a configured user, and our own socket. Trusts the plugin with the
//! local KEK, as any provider is; believes none of its answers that the contract of the API does not allow.
//!
//! With `opens_foreign` it is also handed what Nodeseal has not made, as it is: texts that the plugin itself made for kube-apiserver before
//! Nodeseal took its place. Only 32 bytes come back that way, so that no wrap of a local KEK, which has 64, is opened for a caller.
//!
//! One connection for each call of ours: a plugin that was started anew is no event, and each time its listener is looked at.

mod call;
mod text;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use hmac::Mac;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use self::call::{Method, Plugin};
use self::text::KEY_ID_MAX_BYTES;
use super::reads::Reads;
use super::{Answer, Context, ErrorKind, Kek, KeyIdentity, KeyState, ProviderError, ProviderKind, Wrapped};
use crate::kms::{v1beta1, v2, wiped};
use crate::types::mac::hmac_sha256;
use crate::types::wire::Writer;
use crate::types::{Api, Key, hex, random};

pub use text::Text;

/// Begins what binds a text.
const BINDING_LABEL: &[u8] = b"nodeseal kms plugin v1\0";
/// HMAC-SHA256.
const MAC_BYTES: usize = 32;
/// What a plugin encrypts for us.
const PLAINTEXT_BYTES: usize = Key::LEN + MAC_BYTES;

/// Which plugin, and what its key is called. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KmsPluginSettings {
    /// Where it listens, absolute.
    pub socket: PathBuf,
    /// What new texts are made with. Old ones are opened with what made them.
    pub api: Api,
    /// The operator's name for the key, the same on all nodes.
    pub key: KeyIdentity,
    /// Who may listen there, beside root and ourselves.
    pub allow_uids: Vec<u32>,
    /// It is handed what Nodeseal has not made: texts that it made itself for kube-apiserver, before Nodeseal took its place.
    pub opens_foreign: bool,
    /// Of one call, connecting included.
    pub timeout: Duration,
    /// Sockets of our own, which are no plugin: asking ourselves would never end.
    pub own_sockets: Vec<PathBuf>,
}

/// One key behind another plugin.
pub struct KmsPlugin {
    settings: KmsPluginSettings,
    reads: Reads,
}

impl KmsPlugin {
    /// Does not connect yet.
    pub fn new(settings: KmsPluginSettings) -> Self {
        Self { settings, reads: Reads::new() }
    }

    async fn in_time<T>(&self, call: impl Future<Output = Result<T, ProviderError>>) -> Result<T, ProviderError> {
        let timeout = self.settings.timeout;
        match tokio::time::timeout(timeout, call).await {
            Ok(answer) => answer,
            Err(_) => Err(ProviderError::new(ErrorKind::Away, format!("no answer in {timeout:?}"))),
        }
    }

    async fn look(&self) -> Result<KeyState, ProviderError> {
        let api = self.settings.api;
        let plugin = Plugin::connect(&self.settings, &self.reads).await?;
        let key_id = match api {
            Api::V1 => {
                let asked = v1beta1::VersionRequest { version: api.label().into() };
                let said: v1beta1::VersionResponse = plugin.call(api, Method::Version, &asked).await?;
                expect_version(&said.version, &["v1beta1"])?;
                String::new()
            }
            Api::V2 => {
                let said: v2::StatusResponse = plugin.call(api, Method::Status, &v2::StatusRequest {}).await?;
                // api.proto v2: both are equivalent.
                expect_version(&said.version, &["v2", "v2beta1"])?;
                if said.healthz != "ok" {
                    let detail = format!("Status: healthz is {:?}", call::shown(&said.healthz));
                    return Err(ProviderError::new(ErrorKind::Down, detail));
                }
                key_id(said.key_id, "Status")?
            }
        };
        let version = text::version(api, &key_id).ok_or_else(|| lied("Status: the key_id"))?;
        Ok(KeyState { identity: self.settings.key.clone(), version })
    }

    async fn wrap(&self, key: &Key, context: Context<'_>) -> Result<Wrapped, ProviderError> {
        let api = self.settings.api;
        let plugin = Plugin::connect(&self.settings, &self.reads).await?;
        let plaintext = wiped(bound(key, context));
        let text = match api {
            Api::V1 => {
                let asked = v1beta1::EncryptRequest { version: api.label().into(), plain: plaintext };
                let said: v1beta1::EncryptResponse = plugin.call(api, Method::Encrypt, &asked).await?;
                let (key_id, annotations) = (String::new(), BTreeMap::new());
                Text { api, key_id, ciphertext: said.cipher.to_vec(), annotations }
            }
            Api::V2 => {
                let asked = v2::EncryptRequest { plaintext, uid: uid()? };
                let said: v2::EncryptResponse = plugin.call(api, Method::Encrypt, &asked).await?;
                let annotations = said.annotations.into_iter().map(|(name, value)| (name, value.to_vec())).collect();
                let key_id = key_id(said.key_id, "Encrypt")?;
                Text { api, key_id, ciphertext: said.ciphertext.to_vec(), annotations }
            }
        };
        self.wrapped(&text)
    }

    fn wrapped(&self, text: &Text) -> Result<Wrapped, ProviderError> {
        // No encryption of 64 bytes is shorter, and this finds the plugin that does not encrypt at all.
        if text.ciphertext.len() < PLAINTEXT_BYTES {
            return Err(lied("Encrypt: the ciphertext is empty, or shorter than what was encrypted"));
        }
        if text.encoded_len() > Wrapped::TEXT_MAX_BYTES {
            let (cipher, notes) = (text.ciphertext.len(), text.annotations.len());
            let detail = format!(
                "Encrypt: a ciphertext of {cipher} bytes with {notes} annotations takes {} bytes, and a wrap holds {}",
                text.encoded_len(),
                Wrapped::TEXT_MAX_BYTES
            );
            return Err(ProviderError::new(ErrorKind::Unfit, detail));
        }
        let version = text.version().ok_or_else(|| lied("Encrypt: the key_id"))?;
        Wrapped::new(ProviderKind::KmsPlugin, self.settings.key.clone(), version, text.encode())
            .map_err(|error| lied("Encrypt: the text").because(error))
    }

    async fn unwrap(&self, wrapped: &Wrapped, context: Context<'_>) -> Result<Key, ProviderError> {
        let foreign = |why: &str| ProviderError::new(ErrorKind::Text, why);
        if wrapped.kind != ProviderKind::KmsPlugin || wrapped.identity != self.settings.key {
            return Err(foreign("the wrap is of another key"));
        }
        let text = Text::decode(wrapped.text()).map_err(|error| foreign("the text").because(error))?;
        if text.version().as_ref() != Some(&wrapped.version) {
            return Err(foreign("the text is of another version"));
        }
        opened(&self.decrypt(text).await?, context)
    }

    async fn decrypt(&self, text: Text) -> Result<bytes::Bytes, ProviderError> {
        let plugin = Plugin::connect(&self.settings, &self.reads).await?;
        let (api, ciphertext) = (text.api, text.ciphertext.into());
        Ok(match api {
            Api::V1 => {
                let asked = v1beta1::DecryptRequest { version: api.label().into(), cipher: ciphertext };
                plugin.call::<_, v1beta1::DecryptResponse>(api, Method::Decrypt, &asked).await?.plain
            }
            Api::V2 => {
                let annotations = text.annotations.into_iter().map(|(name, value)| (name, value.into())).collect();
                let asked = v2::DecryptRequest { ciphertext, uid: uid()?, key_id: text.key_id, annotations };
                plugin.call::<_, v2::DecryptResponse>(api, Method::Decrypt, &asked).await?.plaintext
            }
        })
    }

    async fn unwrap_foreign(&self, text: &Text) -> Result<Key, ProviderError> {
        if !self.settings.opens_foreign {
            return Err(ProviderError::new(ErrorKind::Unfit, "opens_foreign is not set for it"));
        }
        let plaintext = self.decrypt(text.clone()).await?;
        Key::copy_of(&plaintext).ok_or_else(|| {
            let detail = format!("it opened to {} bytes, and what kube-apiserver encrypts has 32", plaintext.len());
            ProviderError::new(ErrorKind::Text, detail)
        })
    }
}

impl Kek for KmsPlugin {
    fn kind(&self) -> ProviderKind {
        ProviderKind::KmsPlugin
    }

    fn identity(&self) -> Option<KeyIdentity> {
        Some(self.settings.key.clone())
    }

    fn probe(&self) -> Answer<'_, KeyState> {
        Box::pin(self.in_time(self.look()))
    }

    fn wrap_key<'a>(&'a self, key: &'a Key, context: Context<'a>) -> Answer<'a, Wrapped> {
        Box::pin(self.in_time(self.wrap(key, context)))
    }

    fn unwrap_key<'a>(&'a self, wrapped: &'a Wrapped, context: Context<'a>) -> Answer<'a, Key> {
        Box::pin(self.in_time(self.unwrap(wrapped, context)))
    }

    fn opens_foreign(&self) -> bool {
        self.settings.opens_foreign
    }

    fn open_foreign<'a>(&'a self, text: &'a Text) -> Answer<'a, Key> {
        Box::pin(self.in_time(self.unwrap_foreign(text)))
    }
}

fn lied(detail: &str) -> ProviderError {
    ProviderError::new(ErrorKind::Lied, detail)
}

fn expect_version(said: &str, expected: &[&str]) -> Result<(), ProviderError> {
    if expected.contains(&said) {
        return Ok(());
    }
    let detail = format!("the plugin says that it speaks {:?}, and was asked as {}", call::shown(said), expected[0]);
    Err(ProviderError::new(ErrorKind::Lied, detail))
}

fn key_id(said: String, call: &str) -> Result<String, ProviderError> {
    if (1..=KEY_ID_MAX_BYTES).contains(&said.len()) {
        return Ok(said);
    }
    Err(lied(&format!("{call}: a key_id of {} bytes; 1 to {KEY_ID_MAX_BYTES} are allowed", said.len())))
}

/// Another one for each call, as kube-apiserver does it.
fn uid() -> Result<String, ProviderError> {
    let bytes = random::array::<16>();
    bytes.map(hex::encode).map_err(|error| ProviderError::new(ErrorKind::Protocol, "uid").because(error))
}

/// The cluster is length-prefixed, so that no two pairs give the same bytes.
fn mac(key: &[u8], context: Context<'_>) -> [u8; MAC_BYTES] {
    let mac = hmac_sha256(key);
    let mut bytes = Writer::new();
    bytes.raw(BINDING_LABEL).bytes16(context.cluster.as_str().as_bytes()).raw(context.kek.as_bytes());
    mac.chain_update(bytes.finish()).finalize().into_bytes().into()
}

/// What the plugin is given to encrypt.
fn bound(key: &Key, context: Context<'_>) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(PLAINTEXT_BYTES));
    bytes.extend_from_slice(key.expose());
    bytes.extend_from_slice(&mac(key.expose(), context));
    bytes
}

/// The mirror of [`bound`].
fn opened(plaintext: &[u8], context: Context<'_>) -> Result<Key, ProviderError> {
    let (key, told) = match plaintext.split_at_checked(Key::LEN) {
        Some((key, told)) if told.len() == MAC_BYTES => (key, told),
        _ => return Err(lied("Decrypt: another number of bytes than was encrypted")),
    };
    if !bool::from(mac(key, context).ct_eq(told)) {
        return Err(ProviderError::new(ErrorKind::Text, "the wrap belongs to another cluster or KEK, or was changed"));
    }
    Key::copy_of(key).ok_or_else(|| lied("Decrypt"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ClusterId, KekId};

    #[test]
    fn what_is_encrypted_is_frozen_and_opens_for_its_context_alone() {
        let (prod, test): (ClusterId, ClusterId) = ("prod".parse().unwrap(), "test".parse().unwrap());
        let (one, two) = (KekId::from_bytes([1; 16]), KekId::from_bytes([2; 16]));
        let own = Context { cluster: &prod, kek: &one };
        let bytes = bound(&Key::copy_of(&[7; 32]).unwrap(), own);
        assert_eq!(hex::encode(&bytes[32..]), "1c0934fa913929b29ee7a7ae29b07758d3a86fea2d496e91fc0585bbd90ad9de");
        assert_eq!(opened(&bytes, own).unwrap().expose(), &[7; 32]);
        let kind = |bytes: &[u8], context| opened(bytes, context).err().map(|error| error.kind());
        for other in [Context { cluster: &test, kek: &one }, Context { cluster: &prod, kek: &two }] {
            assert_eq!(kind(&bytes, other), Some(ErrorKind::Text));
        }
        for at in 0..64 {
            let mut changed = bytes.to_vec();
            changed[at] ^= 1;
            assert_eq!(kind(&changed, own), Some(ErrorKind::Text), "{at}");
        }
        for len in [0, 32, 63] {
            assert_eq!(kind(&bytes[..len], own), Some(ErrorKind::Lied), "{len}");
        }
    }
}
