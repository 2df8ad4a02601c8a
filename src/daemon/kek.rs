//! The way to a key of one provider, as the daemon holds it: with its login, with limits that change under it, and opened or not.
//!
//! A provider that cannot be opened is there all the same and fails each call with its reason: a start must not end over one.

use std::sync::{Arc, Mutex, MutexGuard};

#[cfg(feature = "vault")]
use tokio::task::AbortHandle;

use crate::config::providers::Settings;
#[cfg(feature = "vault")]
use crate::provider::vault::Vault;
use crate::provider::{
    Answer, Context, Ends, Kek, KeyIdentity, KeyState, PluginText, ProviderError, ProviderKind, Wrapped,
};
use crate::types::{Key, lock};

/// What answers.
#[derive(Clone)]
pub(super) enum Source {
    /// Its login may be one that cannot be made again.
    #[cfg(feature = "vault")]
    Vault(Arc<WithLogin>),
    Other(Arc<dyn Kek>),
    Unopened(Arc<Unopened>),
}

impl Source {
    /// One that keeps its login alive for as long as it is used, by whatever limits. To be called in the providers' runtime.
    #[cfg(feature = "vault")]
    pub(super) fn vault(vault: Vault) -> Self {
        let login = Arc::new(KeptLogin(tokio::spawn(vault.keep_login()).abort_handle()));
        Self::Vault(Arc::new(WithLogin { vault, login }))
    }

    pub(super) fn of(kek: impl Kek + 'static) -> Self {
        Self::Other(Arc::new(kek))
    }

    #[cfg_attr(
        not(any(feature = "aws", feature = "azure", feature = "pkcs11")),
        expect(dead_code, reason = "no provider of this build can fail to open")
    )]
    pub(super) fn opened<K: Kek + 'static>(kind: ProviderKind, kek: Result<K, ProviderError>) -> Self {
        match kek {
            Ok(kek) => Self::of(kek),
            Err(error) => Self::Unopened(Arc::new(Unopened { kind, error })),
        }
    }

    pub(super) const fn is_open(&self) -> bool {
        !matches!(self, Self::Unopened(_))
    }

    /// The same with its login and with the limits of these settings, for a kind whose login may not be made twice.
    fn eased(&self, settings: &Settings) -> Option<Self> {
        match (self, settings) {
            #[cfg(feature = "vault")]
            (Self::Vault(old), Settings::Vault(settings)) => {
                let (vault, login) = (old.vault.with_timeout(settings.timeout), Arc::clone(&old.login));
                Some(Self::Vault(Arc::new(WithLogin { vault, login })))
            }
            _ => None,
        }
    }

    fn kek(&self) -> Arc<dyn Kek> {
        match self {
            #[cfg(feature = "vault")]
            Self::Vault(vault) => Arc::clone(vault) as Arc<dyn Kek>,
            Self::Other(kek) => Arc::clone(kek),
            Self::Unopened(unopened) => Arc::clone(unopened) as Arc<dyn Kek>,
        }
    }
}

/// Where a source is, for as long as it is the same provider: another one may be put in its place under the calls.
pub(super) struct Slot(Mutex<Source>);

impl Slot {
    pub(super) const fn new(source: Source) -> Self {
        Self(Mutex::new(source))
    }

    pub(super) fn is_open(&self) -> bool {
        self.source().is_open()
    }

    /// See [`Source::eased`].
    pub(super) fn eased(&self, settings: &Settings) -> Option<Source> {
        self.source().eased(settings)
    }

    /// Calls that are under way end with what they were begun with.
    pub(super) fn put(&self, source: Source) {
        let before = std::mem::replace(&mut *self.source(), source);
        drop(before);
    }

    fn source(&self) -> MutexGuard<'_, Source> {
        lock::lock(&self.0)
    }

    fn kek(&self) -> Arc<dyn Kek> {
        self.source().kek()
    }
}

impl Kek for Slot {
    fn kind(&self) -> ProviderKind {
        self.kek().kind()
    }

    fn identity(&self) -> Option<KeyIdentity> {
        self.kek().identity()
    }

    fn ends(&self) -> Ends {
        self.kek().ends()
    }

    fn probe(&self) -> Answer<'_, KeyState> {
        let kek = self.kek();
        Box::pin(async move { kek.probe().await })
    }

    fn wrap_key<'a>(&'a self, key: &'a Key, context: Context<'a>) -> Answer<'a, Wrapped> {
        let kek = self.kek();
        Box::pin(async move { kek.wrap_key(key, context).await })
    }

    fn unwrap_key<'a>(&'a self, wrapped: &'a Wrapped, context: Context<'a>) -> Answer<'a, Key> {
        let kek = self.kek();
        Box::pin(async move { kek.unwrap_key(wrapped, context).await })
    }

    fn draft<'a>(&'a self, key: &'a Key, context: Context<'a>) -> Answer<'a, Wrapped> {
        let kek = self.kek();
        Box::pin(async move { kek.draft(key, context).await })
    }

    fn prove<'a>(&'a self, draft: Wrapped, context: Context<'a>) -> Answer<'a, (Wrapped, Key)> {
        let kek = self.kek();
        Box::pin(async move { kek.prove(draft, context).await })
    }

    fn opens_foreign(&self) -> bool {
        self.kek().opens_foreign()
    }

    fn open_foreign<'a>(&'a self, text: &'a PluginText) -> Answer<'a, Key> {
        let kek = self.kek();
        Box::pin(async move { kek.open_foreign(text).await })
    }

    fn never_blocks(&self) -> bool {
        self.kek().never_blocks()
    }
}

/// A provider whose login is kept alive beside its calls.
#[cfg(feature = "vault")]
pub(super) struct WithLogin {
    vault: Vault,
    login: Arc<KeptLogin>,
}

/// Until nobody uses it any more.
#[cfg(feature = "vault")]
struct KeptLogin(AbortHandle);

#[cfg(feature = "vault")]
impl Drop for KeptLogin {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(feature = "vault")]
impl Kek for WithLogin {
    fn kind(&self) -> ProviderKind {
        self.vault.kind()
    }

    fn ends(&self) -> Ends {
        self.vault.ends()
    }

    fn probe(&self) -> Answer<'_, KeyState> {
        self.vault.probe()
    }

    fn wrap_key<'a>(&'a self, key: &'a Key, context: Context<'a>) -> Answer<'a, Wrapped> {
        self.vault.wrap_key(key, context)
    }

    fn unwrap_key<'a>(&'a self, wrapped: &'a Wrapped, context: Context<'a>) -> Answer<'a, Key> {
        self.vault.unwrap_key(wrapped, context)
    }

    fn draft<'a>(&'a self, key: &'a Key, context: Context<'a>) -> Answer<'a, Wrapped> {
        self.vault.draft(key, context)
    }

    fn prove<'a>(&'a self, draft: Wrapped, context: Context<'a>) -> Answer<'a, (Wrapped, Key)> {
        self.vault.prove(draft, context)
    }

    fn never_blocks(&self) -> bool {
        self.vault.never_blocks()
    }
}

/// A provider that could not be opened.
pub(super) struct Unopened {
    kind: ProviderKind,
    error: ProviderError,
}

impl Unopened {
    fn refuse<T: Send + 'static>(&self) -> Answer<'_, T> {
        Box::pin(std::future::ready(Err(self.error.again())))
    }
}

impl Kek for Unopened {
    fn kind(&self) -> ProviderKind {
        self.kind
    }

    fn probe(&self) -> Answer<'_, KeyState> {
        self.refuse()
    }

    fn wrap_key<'a>(&'a self, _: &'a Key, _: Context<'a>) -> Answer<'a, Wrapped> {
        self.refuse()
    }

    fn unwrap_key<'a>(&'a self, _: &'a Wrapped, _: Context<'a>) -> Answer<'a, Key> {
        self.refuse()
    }
}
