//! The providers of a configuration, opened: their runtime, their logins from the keeper's sealed credentials, and which of them a
//! changed configuration can leave as they are.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};

use super::kek::{Slot, Source};
use super::kept::{Kept, OwnSeals, Seen};
use super::look::Looks;
use crate::config::Config;
use crate::config::providers::{Provider, Providers as Wanted, Settings};
use crate::keyring::keeper::KeeperHandle;
use crate::keyring::rooted::Rooted;
#[cfg(any(feature = "aws", feature = "azure", feature = "pkcs11"))]
use crate::provider::ProviderKind;
use crate::provider::kms_plugin::{KmsPlugin, KmsPluginSettings};
use crate::provider::set::{Member, Providers};
use crate::provider::{Credentials, Kek};
use crate::seal::client::SealerClient;
use crate::store::RunFile;
use crate::types::lock;
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
    /// Those of them whose table is that of one that runs: they are new for their files alone.
    pub(super) refreshed: HashSet<String>,
    /// What comes in the place of what such as stay are asked by, once this is in force.
    eased: Vec<(Arc<Slot>, Source)>,
}

/// One provider that runs, or has proved itself.
#[derive(Clone)]
pub(super) struct Made {
    member: Member,
    slot: Arc<Slot>,
    written: String,
    proved: String,
    /// Of its files, taken before they were read.
    seen: Arc<Mutex<Seen>>,
}

impl Opened {
    /// Names of those whose files are others now than when they were made, or that could not be opened. `folder` is that of the node root.
    pub(super) fn stale(&self, config: &Config, folder: Option<&Path>) -> Vec<(String, Looks)> {
        let wanted = config.providers.iter().flat_map(|providers| &providers.list);
        let now = wanted.filter_map(|provider| {
            let made = self.made.iter().find(|made| made.member.name() == provider.name)?;
            let mut seen = made.seen();
            self.own_seals.teach(&mut seen);
            let now = Looks::at(provider.made_of(folder), &seen.looks);
            if made.slot.is_open() && !now.differ_from(&seen.looks) {
                // A node root that was not there before has a folder of its own.
                seen.looks = now;
                return None;
            }
            Some((provider.name.clone(), now))
        });
        now.collect()
    }

    /// Those of these names that were opened for this.
    pub(super) fn made_anew(&self, names: &HashSet<String>) -> impl Iterator<Item = &Made> {
        self.made.iter().filter(|made| self.new.contains(made.member.name()) && names.contains(made.member.name()))
    }

    /// It is in force.
    pub(super) fn take_effect(&mut self) {
        self.eased.drain(..).for_each(|(slot, source)| slot.put(source));
    }
}

impl Made {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        lock::lock(&self.seen)
    }

    pub(super) fn name(&self) -> &str {
        self.member.name()
    }

    /// It was opened for this table.
    pub(super) fn is_of(&self, provider: &Provider) -> bool {
        self.written == provider.written
    }

    /// Of one table there is one.
    pub(super) fn replaces(&self, other: &Self) -> bool {
        self.written == other.written
    }

    /// The same provider with its login and all that is known of it, as this table has it.
    fn under(&self, provider: &Provider) -> Self {
        let member = self.member.under(&provider.name, provider.role);
        Self { member, written: provider.written.clone(), proved: provider.proved.clone(), ..self.clone() }
    }
}

/// Whose files are looked at.
#[derive(Clone, Copy)]
pub(super) enum Fresh<'a> {
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

    /// Those of `wanted`. What `before` has, made of the same files, is taken over with its login, though its limits may be others; and so is
    /// what has proved itself for a configuration that was refused (`spare`). Nothing of what runs changes by it.
    pub(super) fn open(
        &self,
        wanted: &Wanted,
        before: Option<&Opened>,
        spare: &[Made],
        fresh: Fresh<'_>,
        folder: Option<&Path>,
    ) -> io::Result<Opened> {
        let runtime = self.runtime()?;
        let (mut new, mut refreshed, mut eased) = (HashSet::new(), HashSet::new(), Vec::new());
        let olds = before.map_or(&[][..], |before| &before.made);
        self.own_seals.lie_in(folder);
        olds.iter().chain(spare).for_each(|old| self.own_seals.teach(&mut old.seen()));
        let after = self.own_seals.now();
        let is_written = |old: &Made| wanted.list.iter().any(|provider| provider.written == old.written);
        let mut make = |provider: &Provider| {
            let by_name = || olds.iter().filter(|old| old.member.name() == provider.name).chain(olds);
            // Names are for people, and roles are the operator's: neither makes another provider.
            let same = by_name().find(|old| old.written == provider.written);
            // Limits are one table's own.
            let is_free = |old: &&Made| !is_written(old) && !eased.iter().any(|(slot, _)| Arc::ptr_eq(slot, &old.slot));
            let near = same.or_else(|| by_name().filter(is_free).find(|old| old.proved == provider.proved));
            // Before any of them is read: what is written in between is seen the next time.
            let looks =
                Looks::at(provider.made_of(folder), &near.map(|near| near.seen().looks.clone()).unwrap_or_default());
            let is_as_made = |made: &Made| !looks.differ_from(&made.seen().looks);
            let stays = |near: &&Made| match fresh {
                Fresh::But(kept) => kept.contains(&provider.name) || (near.slot.is_open() && is_as_made(near)),
                Fresh::One(name) => provider.name != name,
            };
            let _entered = runtime.enter();
            let source = match near.filter(stays) {
                Some(stays) if same.is_some() => return stays.under(provider),
                Some(stays) => {
                    let source = stays.slot.eased(&provider.settings).unwrap_or_else(|| self.source(provider));
                    if source.is_open() {
                        eased.push((Arc::clone(&stays.slot), source));
                        return stays.under(provider);
                    }
                    source
                }
                None => {
                    let is_it = |spare: &&Made| spare.written == provider.written && is_as_made(spare);
                    if let Some(spare) = spare.iter().find(is_it) {
                        new.insert(provider.name.clone());
                        refreshed.extend(same.map(|_| provider.name.clone()));
                        return spare.under(provider);
                    }
                    self.source(provider)
                }
            };
            if let Some(near) = near.filter(|near| !near.slot.is_open() && !source.is_open())
                && matches!(fresh, Fresh::But(_))
            {
                // There is nothing that it could prove. Why it cannot be opened may be another reason by now.
                eased.push((Arc::clone(&near.slot), source));
                return near.under(provider);
            }
            new.insert(provider.name.clone());
            refreshed.extend(same.map(|_| provider.name.clone()));
            let slot = Arc::new(Slot::new(source));
            let member = Member::new(&provider.name, provider.role, Arc::clone(&slot) as Arc<dyn Kek>);
            let seen = Arc::new(Mutex::new(OwnSeals::seen(looks, after)));
            Made { member, slot, written: provider.written.clone(), proved: provider.proved.clone(), seen }
        };
        let made: Vec<Made> = wanted.list.iter().map(&mut make).collect();
        let members = made.iter().map(|made| made.member.clone()).collect();
        let providers = Providers::new(members, wanted.strategy);
        let rooted = Arc::new(Rooted::new(runtime.clone(), providers, wanted.rules.clone()));
        Ok(Opened { rooted, made, own_seals: Arc::clone(&self.own_seals), new, refreshed, eased })
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

    fn source(&self, provider: &Provider) -> Source {
        match &provider.settings {
            #[cfg(feature = "vault")]
            Settings::Vault(settings) => {
                let credentials = Arc::clone(&self.credentials);
                Source::vault(crate::provider::vault::Vault::new((**settings).clone(), credentials))
            }
            #[cfg(feature = "aws")]
            Settings::Aws(settings) => Source::opened(
                ProviderKind::Aws,
                crate::provider::aws::AwsKek::open((**settings).clone(), Arc::clone(&self.credentials)),
            ),
            #[cfg(feature = "azure")]
            Settings::Azure(settings) => Source::opened(
                ProviderKind::Azure,
                crate::provider::azure::AzureKek::open((**settings).clone(), Arc::clone(&self.credentials)),
            ),
            #[cfg(feature = "pkcs11")]
            Settings::Pkcs11(settings) => Source::opened(
                ProviderKind::Pkcs11,
                crate::provider::pkcs11::Pkcs11Kek::open((**settings).clone(), self.sealer.clone()),
            ),
            Settings::KmsPlugin(settings) => {
                let own_sockets = self.own_sockets.clone();
                Source::of(KmsPlugin::new(KmsPluginSettings { own_sockets, ..(**settings).clone() }))
            }
        }
    }
}

#[cfg(test)]
impl Opened {
    /// Providers that run already, all of which stay as they are.
    pub(super) fn staying(rooted: Rooted) -> Self {
        let (new, refreshed) = (HashSet::new(), HashSet::new());
        let own_seals = Arc::default();
        Self { rooted: Arc::new(rooted), made: Vec::new(), own_seals, new, refreshed, eased: Vec::new() }
    }
}
