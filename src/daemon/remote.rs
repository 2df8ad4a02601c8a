//! The providers of a configuration, opened: their runtime, their logins from the keeper's sealed credentials, and which of them a
//! changed configuration can leave as they are.
//!
//! A provider that cannot be opened is there all the same and fails each call with its reason: a start must not end over one.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
#[cfg(feature = "vault")]
use tokio::task::AbortHandle;

use super::kept::{Kept, OwnSeals};
use super::look::Looks;
use crate::config::Config;
use crate::config::providers::{Provider, Providers as Wanted, Settings};
use crate::keyring::keeper::KeeperHandle;
use crate::keyring::rooted::Rooted;
use crate::provider::kms_plugin::{KmsPlugin, KmsPluginSettings};
use crate::provider::set::{Member, Providers};
use crate::provider::{Answer, Context, Credentials, Kek, KeyState, ProviderError, ProviderKind, Wrapped};
use crate::seal::client::SealerClient;
use crate::store::RunFile;
use crate::types::Key;
use crate::types::stack::{self, IDLE_BYTES};

/// Threads for what blocks: the system's look-ups of names, which may hang with their server, and questions to the keeper.
const BLOCKING_MAX: usize = 8;

/// As good as for ever: see where it is used.
const KEEP_ALIVE: Duration = Duration::from_secs(365 * 24 * 3600);

/// Opens providers.
pub(super) struct Remote {
    runtime: OnceLock<Handle>,
    #[cfg_attr(
        not(any(feature = "vault", feature = "aws", feature = "azure")),
        expect(dead_code, reason = "no provider of this build logs in")
    )]
    credentials: Arc<dyn Credentials>,
    own_seals: Arc<OwnSeals>,
    /// The way to the token, for a key in it.
    #[cfg(feature = "pkcs11")]
    sealer: SealerClient,
    /// What no plugin's socket may be.
    own_sockets: Vec<PathBuf>,
}

/// What runs, and what it was made from.
pub(super) struct Opened {
    pub(super) rooted: Arc<Rooted>,
    made: Vec<Made>,
    own_seals: Arc<OwnSeals>,
    /// Names of those that have something to prove: who was not there before, or has another key, address, login or file.
    pub(super) new: HashSet<String>,
    /// Those of them that are new for their files alone.
    pub(super) refreshed: HashSet<String>,
}

/// One provider that runs.
struct Made {
    member: Member,
    written: String,
    proved: String,
    /// Of its files, taken before they were read.
    looks: Arc<Mutex<Looks>>,
    /// It could be opened.
    is_open: bool,
}

impl Opened {
    /// Names of those whose files are others now than when they were made, or that could not be opened. `folder` is that of the node root.
    pub(super) fn stale(&self, config: &Config, folder: Option<&Path>) -> Vec<(String, Looks)> {
        let wanted = config.providers.iter().flat_map(|providers| &providers.list);
        let now = wanted.filter_map(|provider| {
            let made = self.made.iter().find(|made| made.member.name() == provider.name)?;
            let mut looks = made.looks();
            self.own_seals.teach(&mut looks);
            let now = Looks::at(provider.made_of(folder), &looks);
            if made.is_open && !now.differ_from(&looks) {
                // A node root that was not there before has a folder of its own.
                *looks = now;
                return None;
            }
            Some((provider.name.clone(), now))
        });
        now.collect()
    }
}

impl Made {
    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose files are looked at.
#[derive(Clone, Copy)]
pub(super) enum Fresh<'a> {
    /// Those of all.
    All,
    /// Those of all but these: a provider whose files have changed is opened anew.
    But(&'a HashSet<String>),
    /// Those of this one, which is opened anew if only because it could not be before.
    One(&'a str),
}

impl Remote {
    /// Sealer and sockets are those of the start: they change with no reload.
    #[cfg_attr(
        not(all(feature = "pkcs11", feature = "vault")),
        expect(
            unused_variables,
            reason = "only a token is reached by the sealer, and only Vault has logins that serve once"
        )
    )]
    pub(super) fn new(
        keeper: KeeperHandle,
        config: &Config,
        sealer: SealerClient,
        login_tries: Option<RunFile>,
    ) -> Self {
        let own_seals = Arc::<OwnSeals>::default();
        Self {
            runtime: OnceLock::new(),
            credentials: Arc::new(Kept::new(keeper, login_tries, Arc::clone(&own_seals))),
            own_seals,
            #[cfg(feature = "pkcs11")]
            sealer,
            own_sockets: [&config.listen.socket, &config.control_socket, &config.status_socket]
                .map(Clone::clone)
                .into(),
        }
    }

    /// Those of `wanted`. What `before` has in the same form, made of the same files, is taken over with its login.
    pub(super) fn open(
        &self,
        wanted: &Wanted,
        before: Option<&Opened>,
        fresh: Fresh<'_>,
        folder: Option<&Path>,
    ) -> io::Result<Opened> {
        let runtime = self.runtime()?;
        let (mut new, mut refreshed) = (HashSet::new(), HashSet::new());
        let olds = before.map_or(&[][..], |before| &before.made);
        self.own_seals.lie_in(folder);
        olds.iter().for_each(|old| self.own_seals.teach(&mut old.looks()));
        let mut make = |provider: &Provider| {
            let named = olds.iter().filter(|old| old.member.name() == provider.name);
            // Names are for people, and roles are the operator's: neither makes another provider.
            let same = named.chain(olds).find(|old| old.written == provider.written);
            // Before any of them is read: what is written in between is seen the next time.
            let none = Looks::default();
            let looks = Looks::at(provider.made_of(folder), &same.map_or(none, |same| same.looks().clone()));
            let (written, proved) = (provider.written.clone(), provider.proved.clone());
            let stays = |same: &&Made| match fresh {
                Fresh::All => same.is_open && !looks.differ_from(&same.looks()),
                Fresh::But(kept) => {
                    same.is_open && (kept.contains(&provider.name) || !looks.differ_from(&same.looks()))
                }
                Fresh::One(name) => provider.name != name,
            };
            if let Some(same) = same.filter(stays) {
                let member = same.member.under(&provider.name, provider.role);
                return Made { member, written, proved, looks: Arc::clone(&same.looks), is_open: same.is_open };
            }
            let _entered = runtime.enter();
            let (kek, is_open) = self.kek(provider);
            let member = Member::new(&provider.name, provider.role, kek);
            let is_eased =
                |old: &&Made| old.proved == proved && !looks.differ_from(&old.looks()) && old.is_open && is_open;
            match olds.iter().find(is_eased).filter(|_| same.is_none()) {
                Some(old) => old.member.identity().into_iter().for_each(|identity| member.remember(identity)),
                None => drop(new.insert(provider.name.clone())),
            }
            if same.is_some_and(|same| same.is_open) {
                refreshed.insert(provider.name.clone());
            }
            Made { member, written, proved, looks: Arc::new(Mutex::new(looks)), is_open }
        };
        let made: Vec<Made> = wanted.list.iter().map(&mut make).collect();
        let members = made.iter().map(|made| made.member.clone()).collect();
        let providers = Providers::new(members, wanted.strategy);
        let rooted = Arc::new(Rooted::new(runtime.clone(), providers, wanted.rules.clone()));
        Ok(Opened { rooted, made, own_seals: Arc::clone(&self.own_seals), new, refreshed })
    }

    /// One thread for all calls to providers. It is started with the first of them and lives as long as the process.
    fn runtime(&self) -> io::Result<Handle> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime.clone());
        }
        let mut builder = Builder::new_current_thread();
        // KEKs and logins went through frames of libraries.
        builder.enable_all().on_thread_park(stack::overwrite::<IDLE_BYTES>);
        builder.max_blocking_threads(BLOCKING_MAX).thread_keep_alive(KEEP_ALIVE);
        let runtime = builder.build()?;
        let handle = runtime.handle().clone();
        // tokio goes on with the threads that it has when the kernel gives it no more, and ends the process if it has none.
        drop(handle.spawn_blocking(|| {}));
        thread::Builder::new()
            .name("providers".into())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
        Ok(self.runtime.get_or_init(|| handle).clone())
    }

    /// Whether it could be opened as well.
    fn kek(&self, provider: &Provider) -> (Arc<dyn Kek>, bool) {
        match &provider.settings {
            #[cfg(feature = "vault")]
            Settings::Vault(settings) => {
                let vault = crate::provider::vault::Vault::new((**settings).clone(), Arc::clone(&self.credentials));
                let login = tokio::spawn(vault.keep_login()).abort_handle();
                (Arc::new(WithLogin { kek: vault, login }), true)
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
                (Arc::new(KmsPlugin::new(settings)), true)
            }
        }
    }
}

#[cfg_attr(
    not(any(feature = "aws", feature = "azure", feature = "pkcs11")),
    expect(dead_code, reason = "no provider of this build can fail to open")
)]
fn opened<K: Kek + 'static>(kind: ProviderKind, kek: Result<K, ProviderError>) -> (Arc<dyn Kek>, bool) {
    match kek {
        Ok(kek) => (Arc::new(kek), true),
        Err(error) => (Arc::new(Unopened { kind, error }), false),
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

    fn draft<'a>(&'a self, key: &'a Key, context: Context<'a>) -> Answer<'a, Wrapped> {
        self.kek.draft(key, context)
    }

    fn prove<'a>(&'a self, draft: Wrapped, context: Context<'a>) -> Answer<'a, (Wrapped, Key)> {
        self.kek.prove(draft, context)
    }

    fn never_blocks(&self) -> bool {
        self.kek.never_blocks()
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
