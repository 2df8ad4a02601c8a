//! A key inside of a PKCS#11 token that several nodes share (an HSM on the network). The key never leaves the token.
//!
//! This process loads no module: the sealer does, and is asked by its socket ([`asker`]). Which module, token and PIN is for
//! `[seal.pkcs11]` to say; the provider names the key alone.
//!
//! **Identity** is `<CKA_ID in hex>/<CKA_LABEL>`, the label with `%XX` for what is not visible ASCII. The id has 16 random bytes when we make
//! the key, and at least 16 when somebody else does (`sealer::pkcs11::shared` says why nothing of the key itself serves). Token labels
//! and serial numbers are no part of it: members of one cluster of HSMs differ in them, and keys are cloned between them with their ids.
//!
//! **Version** is always `1`: PKCS#11 has no versions of a key. Another key is another provider (docs/providers/pkcs11.md, "Rotate").
//!
//! A text is bound to cluster and KEK: the digest of both is what the sealer's blob authenticates as its authValue.

mod asker;
mod fault;

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};

use self::asker::Asker;
use super::{Answer, Context, ErrorKind, Kek, KeyIdentity, KeyState, KeyVersion, ProviderError, ProviderKind, Wrapped};
use crate::seal::client::SealerClient;
use crate::seal::protocol::{Auth, DeviceBlob};
use crate::seal::token_key::TokenKey;
use crate::types::wire::Writer;
use crate::types::{Key, hex};

/// Begins what a text is bound to.
const BINDING_LABEL: &[u8] = b"nodeseal shared key v1\0";

/// The only version there is.
const VERSION: &str = "1";

/// Which key. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pkcs11KekSettings {
    /// Its label and, where it is pinned, its id. The label is not that of the key that seals the node root.
    pub key: TokenKey,
    /// Makes the key at the first probe if there is none of that label. For one node only, at its first start: to be left out where a key
    /// of this provider was ever seen.
    pub make_key: bool,
    /// Of one call. A token that is logged in to anew takes seconds.
    pub timeout: Duration,
}

/// One key in the token behind the sealer.
pub struct Pkcs11Kek {
    settings: Pkcs11KekSettings,
    asker: Asker,
    /// A key was seen: if it is gone, another one is not what helps.
    seen: AtomicBool,
}

impl Pkcs11Kek {
    /// Starts the thread that asks; asks nothing yet.
    pub fn open(settings: Pkcs11KekSettings, sealer: SealerClient) -> Result<Self, ProviderError> {
        let asker = Asker::start(sealer, settings.timeout)?;
        Ok(Self { settings, asker, seen: AtomicBool::new(false) })
    }

    async fn look(&self) -> Result<KeyState, ProviderError> {
        let Pkcs11KekSettings { key, make_key, timeout } = self.settings.clone();
        let make = make_key && !self.seen.load(Ordering::Relaxed);
        let found = self.asker.ask(move |sealer| sealer.shared_key(key, make, timeout)).await?;
        self.seen.store(true, Ordering::Relaxed);
        Ok(KeyState { identity: self.identity(&found)?, version: version()? })
    }

    async fn wrap(&self, plain: &Key, context: Context<'_>) -> Result<Wrapped, ProviderError> {
        let Pkcs11KekSettings { key, timeout, .. } = self.settings.clone();
        let (auth, plain) = (binding(context), plain.duplicate());
        let (used, blob) = self.asker.ask(move |sealer| sealer.wrap(key, auth, plain, timeout)).await?;
        if blob.backend() != Some(crate::types::Backend::Pkcs11) {
            return Err(ProviderError::new(ErrorKind::Lied, "wrap: the text is none of a token"));
        }
        let text = blob.as_bytes().to_vec();
        Wrapped::new(ProviderKind::Pkcs11, self.identity(&used)?, version()?, text)
            .map_err(|error| ProviderError::new(ErrorKind::Lied, "wrap: the text").because(error))
    }

    async fn open_text(&self, wrapped: &Wrapped, context: Context<'_>) -> Result<Key, ProviderError> {
        let foreign = |why: &str| ProviderError::new(ErrorKind::Text, why);
        let key = self.named(&wrapped.identity).filter(|_| wrapped.kind == ProviderKind::Pkcs11);
        let key = key.ok_or_else(|| foreign("the wrap is of another key"))?;
        if wrapped.version.as_str() != VERSION {
            return Err(foreign("the wrap is of a version that no token has"));
        }
        let blob = DeviceBlob::new(wrapped.text().to_vec()).ok_or_else(|| foreign("the text is too long"))?;
        let (auth, timeout) = (binding(context), self.settings.timeout);
        self.asker.ask(move |sealer| sealer.unwrap(key, auth, blob, timeout)).await
    }

    /// Of a key that the sealer says it has, which must be the one that was asked for.
    fn identity(&self, found: &TokenKey) -> Result<KeyIdentity, ProviderError> {
        let lied = || ProviderError::new(ErrorKind::Lied, "the sealer answered for another key");
        let wanted = &self.settings.key;
        let id = found.id().filter(|id| wanted.id().is_none_or(|wanted| wanted == *id)).ok_or_else(lied)?;
        if found.label() != wanted.label() {
            return Err(lied());
        }
        KeyIdentity::new(format!("{}/{}", hex::encode(id), escaped(found.label()))).map_err(|_| lied())
    }

    /// The key of an identity, if it has our label. Its id need not be the pinned one.
    fn named(&self, identity: &KeyIdentity) -> Option<TokenKey> {
        let label = self.settings.key.label();
        let (id, named) = identity.as_str().split_once('/')?;
        let id = hex::decode(id).ok().filter(|bytes| hex::encode(bytes) == id)?;
        (named == escaped(label)).then(|| TokenKey::new(label, Some(id)))?
    }
}

impl Kek for Pkcs11Kek {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Pkcs11
    }

    fn probe(&self) -> Answer<'_, KeyState> {
        Box::pin(self.look())
    }

    fn wrap_key<'a>(&'a self, key: &'a Key, context: Context<'a>) -> Answer<'a, Wrapped> {
        Box::pin(self.wrap(key, context))
    }

    fn unwrap_key<'a>(&'a self, wrapped: &'a Wrapped, context: Context<'a>) -> Answer<'a, Key> {
        Box::pin(self.open_text(wrapped, context))
    }

    fn never_blocks(&self) -> bool {
        true
    }
}

fn version() -> Result<KeyVersion, ProviderError> {
    KeyVersion::new(VERSION).map_err(|error| ProviderError::new(ErrorKind::Protocol, "version").because(error))
}

/// What a text is bound to. The cluster is length-prefixed, so that no two pairs give the same bytes.
fn binding(context: Context<'_>) -> Auth {
    let mut bytes = Writer::new();
    bytes.raw(BINDING_LABEL).bytes16(context.cluster.as_str().as_bytes()).raw(context.kek.as_bytes());
    Auth::new(Key::of(&Sha256::digest(bytes.finish()).0))
}

/// One to one: a percent sign is escaped too.
fn escaped(label: &str) -> String {
    let mut text = String::with_capacity(label.len());
    for byte in label.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' {
            text.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ClusterId, KekId};

    fn kek(label: &str, id: Option<Vec<u8>>) -> Pkcs11Kek {
        let key = TokenKey::new(label, id).unwrap();
        let settings = Pkcs11KekSettings { key, make_key: false, timeout: Duration::from_secs(1) };
        Pkcs11Kek::open(settings, SealerClient::Socket("/nonexistent/sealer".into())).unwrap()
    }

    #[test]
    fn an_identity_names_label_and_id_and_is_read_back() {
        let kek = kek("a 50% key", None);
        let found = TokenKey::new("a 50% key", Some(vec![0xAB; 16])).unwrap();
        let identity = kek.identity(&found).unwrap();
        // Frozen: wraps are matched by it.
        assert_eq!(identity.as_str(), format!("{}/a%2050%25%20key", "ab".repeat(16)));
        assert_eq!(kek.named(&identity), Some(found));
        for other in ["abab/other", "ABAB/a%2050%25%20key", "xx/a%2050%25%20key", "/a%2050%25%20key", "a%2050%25%20key"]
        {
            assert_eq!(kek.named(&KeyIdentity::new(other).unwrap()), None, "{other}");
        }
    }

    #[test]
    fn an_answer_for_another_key_than_the_pinned_one_is_a_lie() {
        let kek = kek("a", Some(vec![1; 16]));
        for (label, id) in [("b", Some(vec![1; 16])), ("a", Some(vec![2; 16])), ("a", None)] {
            let error = kek.identity(&TokenKey::new(label, id).unwrap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Lied);
        }
    }

    #[test]
    fn the_binding_is_frozen() {
        let (cluster, id): (ClusterId, _) = ("prod".parse().unwrap(), KekId::from_bytes([1; 16]));
        let auth = binding(Context { cluster: &cluster, kek: &id });
        assert_eq!(hex::encode(auth.expose()), "8e116ad58f3775f62cc649a903461fb51241aefb7110a7bb7bf91c047effa154");
    }

    #[tokio::test]
    async fn a_sealer_that_is_not_there_is_away() {
        assert_eq!(kek("a", None).probe().await.unwrap_err().kind(), ErrorKind::Away);
    }
}
