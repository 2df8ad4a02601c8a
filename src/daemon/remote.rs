//! The providers of a configuration, opened: their runtime, their logins from the keeper's sealed credentials, and which of them a
//! changed configuration can leave as they are.
//!
//! A provider that cannot be opened is there all the same and fails each call with its reason: a start must not end over one.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread;

use tokio::runtime::{Builder, Handle};
#[cfg(feature = "vault")]
use tokio::task::AbortHandle;

use crate::config::Config;
use crate::config::providers::{Provider, Providers as Wanted, Settings};
use crate::keyring::keeper::KeeperHandle;
use crate::keyring::rooted::Rooted;
use crate::provider::kms_plugin::{KmsPlugin, KmsPluginSettings};
use crate::provider::set::{Member, Providers};
use crate::provider::{
    Answer, Context, CredentialAnswer, CredentialError, Credentials, Kek, KeyState, ProviderError, ProviderKind,
    Wrapped,
};
use crate::seal::client::SealerClient;
use crate::types::stack::{self, IDLE_BYTES};
use crate::types::{CredentialName, Key, Secret};

/// Opens providers.
pub(super) struct Remote {
    runtime: OnceLock<Handle>,
    #[cfg_attr(
        not(any(feature = "vault", feature = "aws", feature = "azure")),
        expect(dead_code, reason = "no provider of this build logs in")
    )]
    credentials: Arc<dyn Credentials>,
    /// The way to the token, for a key in it.
    #[cfg(feature = "pkcs11")]
    sealer: SealerClient,
    /// What no plugin's socket may be.
    own_sockets: Vec<PathBuf>,
}

/// What runs, and the text that it was made from.
pub(super) struct Opened {
    pub(super) rooted: Arc<Rooted>,
    pub(super) written: Wanted,
    /// Names of those that were not there before, or in another form.
    pub(super) new: HashSet<String>,
}

impl Remote {
    /// Sealer and sockets are those of the start: they change with no reload.
    #[cfg_attr(not(feature = "pkcs11"), expect(unused_variables, reason = "only a token is reached by the sealer"))]
    pub(super) fn new(keeper: KeeperHandle, config: &Config, sealer: SealerClient) -> Self {
        Self {
            runtime: OnceLock::new(),
            credentials: Arc::new(Kept(keeper)),
            #[cfg(feature = "pkcs11")]
            sealer,
            own_sockets: vec![config.listen.socket.clone(), config.control_socket.clone()],
        }
    }

    /// Those of `wanted`. What `before` has in the same form is taken over with its login, unless it was touched.
    pub(super) fn open(
        &self,
        wanted: &Wanted,
        before: Option<&Opened>,
        touched: &HashSet<String>,
    ) -> io::Result<Opened> {
        let runtime = self.runtime()?;
        let mut new = HashSet::new();
        let members = wanted.list.iter().map(|provider| {
            let old = before.filter(|_| !touched.contains(&provider.name)).and_then(|before| same(before, provider));
            old.unwrap_or_else(|| {
                new.insert(provider.name.clone());
                let _entered = runtime.enter();
                Member::new(&provider.name, provider.role, self.kek(provider))
            })
        });
        let providers = Providers::new(members.collect(), wanted.strategy);
        let rooted = Arc::new(Rooted::new(runtime.clone(), providers, wanted.rules.clone()));
        Ok(Opened { rooted, written: wanted.clone(), new })
    }

    /// One thread for all calls to providers. It is started with the first of them and lives as long as the process.
    fn runtime(&self) -> io::Result<Handle> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime.clone());
        }
        let mut builder = Builder::new_current_thread();
        // KEKs and logins went through frames of libraries.
        builder.enable_all().on_thread_park(stack::overwrite::<IDLE_BYTES>);
        let runtime = builder.build()?;
        let handle = runtime.handle().clone();
        thread::Builder::new()
            .name("providers".into())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
        Ok(self.runtime.get_or_init(|| handle).clone())
    }

    fn kek(&self, provider: &Provider) -> Arc<dyn Kek> {
        match &provider.settings {
            #[cfg(feature = "vault")]
            Settings::Vault(settings) => {
                let vault = crate::provider::vault::Vault::new((**settings).clone(), Arc::clone(&self.credentials));
                let login = tokio::spawn(vault.keep_login()).abort_handle();
                Arc::new(WithLogin { kek: vault, login })
            }
            #[cfg(feature = "aws")]
            Settings::Aws(settings) => opened(
                ProviderKind::Aws,
                crate::provider::aws::AwsKek::open((**settings).clone(), Arc::clone(&self.credentials)),
            ),
            #[cfg(feature = "azure")]
            Settings::Azure(settings) => opened(
                ProviderKind::Azure,
                crate::provider::azure::AzureKek::open((**settings).clone(), Arc::clone(&self.credentials)),
            ),
            #[cfg(feature = "pkcs11")]
            Settings::Pkcs11(settings) => opened(
                ProviderKind::Pkcs11,
                crate::provider::pkcs11::Pkcs11Kek::open((**settings).clone(), self.sealer.clone()),
            ),
            Settings::KmsPlugin(settings) => {
                let settings = KmsPluginSettings { own_sockets: self.own_sockets.clone(), ..(**settings).clone() };
                Arc::new(KmsPlugin::new(settings))
            }
        }
    }
}

fn same(before: &Opened, provider: &Provider) -> Option<Member> {
    before.written.list.iter().find(|old| old.written == provider.written)?;
    before.rooted.providers.members().iter().find(|member| member.name() == provider.name).cloned()
}

#[cfg_attr(
    not(any(feature = "aws", feature = "azure", feature = "pkcs11")),
    expect(dead_code, reason = "no provider of this build can fail to open")
)]
fn opened<K: Kek + 'static>(kind: ProviderKind, kek: Result<K, ProviderError>) -> Arc<dyn Kek> {
    match kek {
        Ok(kek) => Arc::new(kek),
        Err(error) => Arc::new(Unopened { kind, error }),
    }
}

/// A provider whose login is kept alive beside its calls, as long as the provider is used.
#[cfg(feature = "vault")]
struct WithLogin<K> {
    kek: K,
    login: AbortHandle,
}

#[cfg(feature = "vault")]
impl<K> Drop for WithLogin<K> {
    fn drop(&mut self) {
        self.login.abort();
    }
}

#[cfg(feature = "vault")]
impl<K: Kek> Kek for WithLogin<K> {
    fn kind(&self) -> ProviderKind {
        self.kek.kind()
    }

    fn probe(&self) -> Answer<'_, KeyState> {
        self.kek.probe()
    }

    fn wrap_key<'a>(&'a self, key: &'a Key, context: Context<'a>) -> Answer<'a, Wrapped> {
        self.kek.wrap_key(key, context)
    }

    fn unwrap_key<'a>(&'a self, wrapped: &'a Wrapped, context: Context<'a>) -> Answer<'a, Key> {
        self.kek.unwrap_key(wrapped, context)
    }
}

/// A provider that could not be opened.
struct Unopened {
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

/// Credentials as the keeper has them. It answers on its own thread, and may be busy with a disk.
struct Kept(KeeperHandle);

impl Kept {
    fn ask<T: Send + 'static>(
        &self,
        name: &str,
        ask: impl FnOnce(&KeeperHandle, CredentialName) -> Result<T, crate::keyring::KeeperError> + Send + 'static,
    ) -> CredentialAnswer<'static, T> {
        let (keeper, name) = (self.0.clone(), name.parse::<CredentialName>());
        Box::pin(async move {
            let name = name.map_err(boxed)?;
            let answer = tokio::task::spawn_blocking(move || ask(&keeper, name)).await;
            answer.map_err(boxed)?.map_err(boxed)
        })
    }
}

fn boxed(error: impl std::error::Error + Send + Sync + 'static) -> CredentialError {
    Box::new(error)
}

impl Credentials for Kept {
    fn open<'a>(&'a self, name: &'a str) -> CredentialAnswer<'a, Secret> {
        self.ask(name, |keeper, name| keeper.open_credential(name))
    }

    fn replace<'a>(&'a self, name: &'a str, secret: &'a Secret) -> CredentialAnswer<'a, ()> {
        let content = Secret::new(secret.expose().to_vec());
        self.ask(name, |keeper, name| keeper.replace_credential(name, content))
    }
}
