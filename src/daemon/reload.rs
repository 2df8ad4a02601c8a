//! A changed configuration in a running service: parse, check, open what is new, prove a round trip with it, then swap in one step.
//! Anything wrong keeps what runs, and says why.
//!
//! Providers and their rules change so. What the process has built itself on (sockets, state directory, sealing device, cluster)
//! needs a restart, and is told. A start itself proves nothing: it must come up with every provider away.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::remote::{Opened, Remote};
use crate::audit::{Event, emit};
use crate::config::{self, Config, ConfigError};
use crate::keyring::KeeperError;
use crate::keyring::keeper::KeeperHandle;
use crate::keyring::rooted::Rooted;
use crate::provider::ProviderError;
use crate::provider::set::{Owned, Role};
use crate::sandbox::{Confined, Lack};
use crate::seal::client::SealerClient;
use crate::seal::credential;
use crate::types::random::RandomError;
use crate::types::{Chain, Class, ClusterId, KekId, Key, random};

/// Between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// What a proof may take, login included.
const PROOF_TIMEOUT: Duration = Duration::from_secs(15);

/// Why the running configuration is kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReloadError {
    #[error("the configuration cannot be used")]
    Config(#[source] ConfigError),
    #[error("it needs what this process has given up for good")]
    Confined(#[source] Lack),
    #[error("the keys do not allow it")]
    Keeper(#[source] KeeperError),
    #[error("provider `{provider}` did not prove itself")]
    Proof {
        provider: String,
        #[source]
        source: ProviderError,
    },
    #[error("provider `{provider}` did not prove itself within {} s", PROOF_TIMEOUT.as_secs())]
    Late { provider: String },
    #[error("no key can be made for a proof")]
    Random(#[source] RandomError),
    #[error("the providers' thread cannot be started")]
    Runtime(#[source] io::Error),
}

impl ReloadError {
    pub(super) fn class(&self) -> Class {
        match self {
            Self::Config(error) => error.class(),
            Self::Confined(_) => Class::Misconfigured,
            Self::Keeper(error) => error.class(),
            Self::Proof { source, .. } => source.class(),
            Self::Late { .. } | Self::Random(_) | Self::Runtime(_) => Class::Unavailable,
        }
    }

    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Config(error) => error.hint(),
            Self::Confined(_) => {
                "restart nodeseald; to add such a provider by a reload, allow it before: `sandbox.allow_ports`, `sandbox.allow_paths`"
            }
            Self::Keeper(error) => error.hint(),
            Self::Proof { source, .. } => source.hint(),
            Self::Late { .. } => "see network and login of the provider, then reload once more",
            Self::Random(_) => "the kernel's random generator failed: reboot, and distrust the machine",
            Self::Runtime(_) => "see the limits of processes, memory and descriptors",
        }
    }
}

/// What runs, and how it is changed.
pub(super) struct Reloader {
    keeper: KeeperHandle,
    remote: Remote,
    confined: Confined,
    /// Two reloads go one after the other.
    turn: Mutex<()>,
    runs: Mutex<Runs>,
}

struct Runs {
    config: Config,
    opened: Option<Arc<Opened>>,
}

impl Reloader {
    /// Opens the providers of the first configuration, without asking them anything.
    pub(super) fn new(
        config: Config,
        keeper: KeeperHandle,
        sealer: SealerClient,
        confined: Confined,
    ) -> io::Result<Self> {
        let remote = Remote::new(keeper.clone(), &config, sealer);
        let wanted = config.providers.as_ref();
        let opened = wanted.map(|wanted| remote.open(wanted, None, &HashSet::new())).transpose()?.map(Arc::new);
        Ok(Self { keeper, remote, confined, turn: Mutex::default(), runs: Mutex::new(Runs { config, opened }) })
    }

    pub(super) fn config(&self) -> Config {
        self.runs().config.clone()
    }

    pub(super) fn confined(&self) -> &Confined {
        &self.confined
    }

    pub(super) fn rooted(&self) -> Option<Arc<Rooted>> {
        self.runs().opened.as_ref().map(|opened| Arc::clone(&opened.rooted))
    }

    /// Because of a signal or a changed file.
    pub(super) fn reload_and_tell(&self, touched: &HashSet<String>, reason: &'static str) {
        let _ = self.reload(touched, false, reason);
    }

    /// Providers that are `touched` are opened anew, whatever the file says of them.
    pub(super) fn reload(
        &self,
        touched: &HashSet<String>,
        abandon: bool,
        reason: &'static str,
    ) -> Result<(), ReloadError> {
        let done = self.try_reload(touched, abandon);
        match &done {
            Ok(()) => emit(&Event::ConfigReloaded { reason }),
            Err(error) => {
                emit(&Event::ConfigRefused { reason, error: &Chain(error).to_string(), hint: error.hint() });
            }
        }
        done
    }

    fn try_reload(&self, touched: &HashSet<String>, abandon: bool) -> Result<(), ReloadError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (running, before) = {
            let runs = self.runs();
            (runs.config.clone(), runs.opened.clone())
        };
        let config = config::load(&running.path).map_err(ReloadError::Config)?;
        for warning in &config.warnings {
            emit(&Event::ConfigWarned { key: &warning.key, text: &warning.text });
        }
        for key in needs_restart(&running, &config) {
            emit(&Event::ConfigWarned { key, text: "takes effect with the next start of nodeseald" });
        }
        // Of the new file only the providers take effect.
        let next = Config { providers: config.providers.clone(), ..running.clone() };
        if let Some(lack) = self.confined.lacks(&next.daemon_needs()) {
            return Err(ReloadError::Confined(lack));
        }
        let open = |wanted| self.remote.open(wanted, before.as_deref(), touched).map_err(ReloadError::Runtime);
        let opened = config.providers.as_ref().map(open).transpose()?.map(Arc::new);
        if let Some(opened) = &opened {
            prove(opened, &running.cluster)?;
        }
        let rooted = opened.as_ref().map(|opened| Arc::clone(&opened.rooted));
        self.keeper.configure(rooted, abandon).map_err(ReloadError::Keeper)?;
        // Only what has taken effect: the next comparison is with what runs.
        let mut runs = self.runs();
        runs.config.providers = config.providers;
        runs.config.watch = config.watch;
        runs.config.warnings = config.warnings;
        runs.opened = opened;
        Ok(())
    }

    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the files for ever. A rename and a link that is swapped above a file change what its path leads to.
    pub(super) fn watch(&self) {
        let mut known = self.look();
        loop {
            thread::sleep(LOOK_EVERY);
            let now = self.look();
            if now == known {
                continue;
            }
            let config = self.config();
            let differs = |path: &Path| now.get(path) != known.get(path);
            let touched: HashSet<String> = config
                .providers
                .iter()
                .flat_map(|providers| &providers.list)
                .filter(|provider| inputs(&config, provider).iter().any(|path| differs(path)))
                .map(|provider| provider.name.clone())
                .collect();
            if !touched.is_empty() || (config.watch && differs(&config.path)) {
                self.reload_and_tell(&touched, "a file has changed");
            }
            // What has changed during the reload differs from what was seen before it, and is taken up at the next look.
            known = self.look();
            for (path, seen) in now {
                known.entry(path).and_modify(|look| *look = seen);
            }
        }
    }

    fn look(&self) -> HashMap<PathBuf, Option<Look>> {
        let config = self.config();
        let providers = config.providers.iter().flat_map(|providers| &providers.list);
        let paths = providers.flat_map(|provider| inputs(&config, provider));
        paths.chain([config.path.clone()]).map(|path| (path.clone(), Look::at(&path))).collect()
    }
}

/// Files that a provider's login and trust are made of.
fn inputs(config: &Config, provider: &config::providers::Provider) -> Vec<PathBuf> {
    let sealed = provider.credentials.iter().map(|name| config.state_dir.join(credential::file_name(name)));
    sealed.chain(provider.files.iter().cloned()).collect()
}

/// What tells one content of a path from another without reading it.
#[derive(PartialEq, Eq)]
struct Look {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Look {
    fn at(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        let modified = (meta.mtime(), meta.mtime_nsec());
        Some(Self { device: meta.dev(), inode: meta.ino(), bytes: meta.size(), modified })
    }
}

/// Keys whose new value nothing takes up.
fn needs_restart(runs: &Config, next: &Config) -> Vec<&'static str> {
    let differ = |a: &dyn std::fmt::Debug, b: &dyn std::fmt::Debug| format!("{a:?}") != format!("{b:?}");
    [
        ("cluster", runs.cluster != next.cluster),
        ("state_dir", runs.state_dir != next.state_dir),
        ("listen", differ(&runs.listen, &next.listen)),
        ("control", runs.control_socket != next.control_socket),
        ("seal", differ(&runs.seal, &next.seal)),
        ("local_kek.max_age", runs.max_age != next.max_age),
        ("sandbox", runs.sandbox != next.sandbox),
        ("log", differ(&(runs.log_format, runs.log_level), &(next.log_format, next.log_level))),
    ]
    .into_iter()
    .filter_map(|(key, differs)| differs.then_some(key))
    .collect()
}

/// A key of no use there and back by each that is new; one that only decrypts has to show its key.
fn prove(opened: &Opened, cluster: &ClusterId) -> Result<(), ReloadError> {
    let id = KekId::from_bytes(random::array().map_err(ReloadError::Random)?);
    let key = Arc::new(Key::random().map_err(ReloadError::Random)?);
    for member in opened.rooted.providers.members().iter().filter(|member| opened.new.contains(member.name())) {
        let provider = member.name().to_owned();
        let (member, of, key) = (member.clone(), Owned { cluster: cluster.clone(), kek: id }, Arc::clone(&key));
        let proof = async move {
            let end = tokio::time::Instant::now() + PROOF_TIMEOUT;
            // The first call logs in as well, and may take longer than an attempt for a text.
            member.probe(end).await?;
            match member.role() {
                Role::Required | Role::Optional => member.wrap_and_prove(&key, &of, PROOF_TIMEOUT, end).await.map(drop),
                Role::DecryptOnly => Ok(()),
            }
        };
        let (tell, answer) = std::sync::mpsc::channel();
        opened.rooted.runtime.spawn(async move { tell.send(proof.await) });
        match answer.recv_timeout(PROOF_TIMEOUT) {
            Ok(Ok(())) => {}
            Ok(Err(source)) => return Err(ReloadError::Proof { provider, source }),
            Err(_) => return Err(ReloadError::Late { provider }),
        }
    }
    Ok(())
}
