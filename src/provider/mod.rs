//! Providers: keys that live elsewhere and wrap local KEKs. Each kind is a folder behind a cargo feature, but for `kms_plugin`, which
//! needs no library that the API does not need.
//!
//! [`Kek`] is the joint. A provider knows its own protocol and its own login, and nothing of keyrings, retries, budgets or
//! health: who asks decides those by the class of a [`ProviderError`]. It never reports a success that it did not see: an empty answer, a
//! wrap of another key, or a version that was not asked for is an error ([`ErrorKind::Lied`]).
//!
//! A wrap is matched to a provider by the [`KeyIdentity`] inside of it, never by the provider's name in the configuration: renaming or
//! re-ordering providers loses nothing.

#[cfg(feature = "aws")]
pub mod aws;
#[cfg(feature = "azure")]
pub mod azure;
#[cfg(any(feature = "azure", feature = "vault"))]
mod base64;
pub mod breaker;
mod credentials;
mod error;
#[cfg(feature = "http-client")]
mod files;
#[cfg(feature = "http-client")]
mod home;
#[cfg(feature = "http-client")]
mod http;
pub mod kms_plugin;
#[cfg(feature = "http-client")]
mod lease;
#[cfg(feature = "vault")]
mod login_tries;
pub mod observed;
#[cfg(feature = "vault")]
mod once;
#[cfg(feature = "pkcs11")]
pub mod pkcs11;
mod reads;
#[cfg(feature = "http-client")]
mod session;
pub mod set;
#[cfg(feature = "vault")]
pub mod vault;
mod wrapped;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

pub use credentials::{CredentialAnswer, CredentialError, Credentials, Mark};
pub use error::{ErrorKind, ProviderError};
#[cfg(feature = "http-client")]
pub use http::{Address, AddressError, SYSTEM_ROOTS, TrustAnchors};
pub use kms_plugin::Text as PluginText;
#[cfg(feature = "vault")]
pub use login_tries::LoginTries;
pub use wrapped::{Form, KeyIdentity, KeyVersion, TextError, Wrapped};

use crate::types::{ClusterId, KekId, Key};

/// A kind of provider. The number is stored and never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ProviderKind {
    /// HashiCorp Vault or OpenBao, secrets engine transit.
    Vault = 1,
    /// AWS KMS.
    Aws = 2,
    /// Azure Key Vault or Managed HSM.
    Azure = 3,
    /// A key that stays inside of a PKCS#11 token.
    Pkcs11 = 4,
    /// Another KMS plugin on a unix socket.
    KmsPlugin = 5,
}

impl ProviderKind {
    /// All of them, compiled in or not.
    pub const ALL: [Self; 5] = [Self::Vault, Self::Aws, Self::Azure, Self::Pkcs11, Self::KmsPlugin];

    /// As written in the configuration; also the name of the cargo feature where there is one.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Vault => "vault",
            Self::Aws => "aws",
            Self::Azure => "azure",
            Self::Pkcs11 => "pkcs11",
            Self::KmsPlugin => "kms-plugin",
        }
    }

    /// From its stored number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// What a wrap is bound to at the provider, where that can bind anything (associated data, encryption context).
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Of this configuration.
    pub cluster: &'a ClusterId,
    /// The local KEK that is wrapped.
    pub kek: &'a KekId,
}

/// The key at a provider, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyState {
    /// Which key, for good: a key that was deleted and made again under the same name has another one.
    pub identity: KeyIdentity,
    /// The version that wraps.
    pub version: KeyVersion,
}

/// An answer that takes the network.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, ProviderError>> + Send + 'a>>;

/// How long something lasts that comes to an end by itself. Absent: there is none, it has no end, or it was not seen yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// The login, if it is not renewed before.
    pub login: Option<Duration>,
    /// The provider's TLS certificate, as it was last shown.
    pub certificate: Option<Duration>,
}

/// One key at one provider, with a login to it.
///
/// One call is one attempt: no retry inside, and no time limit of its own beyond the one that it was built with. Dropping the
/// future gives the attempt up.
pub trait Kek: Send + Sync {
    /// Which kind.
    fn kind(&self) -> ProviderKind;

    /// Its key, where the configuration alone says which one it is.
    fn identity(&self) -> Option<KeyIdentity> {
        None
    }

    /// Which key and which version, asked anew. Also the health check.
    fn probe(&self) -> Answer<'_, KeyState>;

    /// Wraps 32 bytes under the newest version. Identity and version are those that the provider used for this very text.
    fn wrap_key<'a>(&'a self, key: &'a Key, context: Context<'a>) -> Answer<'a, Wrapped>;

    /// Opens what [`Kek::wrap_key`] gave, under the version that it names.
    fn unwrap_key<'a>(&'a self, wrapped: &'a Wrapped, context: Context<'a>) -> Answer<'a, Key>;

    /// The first half of a wrap that is proved at once: as [`Kek::wrap_key`], but identity and version hold only when
    /// [`Kek::prove`] has gone well.
    fn draft<'a>(&'a self, key: &'a Key, context: Context<'a>) -> Answer<'a, Wrapped> {
        self.wrap_key(key, context)
    }

    /// The second half: the wrap as it is for good, and the key to which it opens. Whether that is the one that was wrapped is for the
    /// asker to see.
    fn prove<'a>(&'a self, draft: Wrapped, context: Context<'a>) -> Answer<'a, (Wrapped, Key)> {
        Box::pin(async move {
            let opened = self.unwrap_key(&draft, context).await?;
            Ok((draft, opened))
        })
    }

    /// Whether texts that Nodeseal has not made are handed to it.
    fn opens_foreign(&self) -> bool {
        false
    }

    /// Opens a text that Nodeseal has not made, as kube-apiserver has stored it. 32 bytes are all that kube-apiserver gives to a plugin
    /// (`generateKey(32)` in envelope.go and the seed of kmsv2/envelope.go in k8s.io/apiserver), and anything else is refused: a wrap of a
    /// local KEK is longer, and must not leave by this way.
    fn open_foreign<'a>(&'a self, _: &'a PluginText) -> Answer<'a, Key> {
        let refusal = ProviderError::new(ErrorKind::Unfit, "it opens only what Nodeseal has made");
        Box::pin(std::future::ready(Err(refusal)))
    }

    /// How long what its calls need lasts, as far as is known.
    fn ends(&self) -> Ends {
        Ends::default()
    }

    /// Whether the thread that polls a call is never blocked by it, be it by the path of a file. Then the API's own thread may do that.
    fn never_blocks(&self) -> bool {
        false
    }
}
