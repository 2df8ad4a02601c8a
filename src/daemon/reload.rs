//! A changed configuration in a running service: parse, check, open what is new, prove a round trip with it, then swap in one step.
//! Anything wrong keeps what runs, and says why.
//!
//! Providers and their rules change so. What the process has built itself on (sockets, state directory, sealing device, cluster)
//! needs a restart, and is told. A start itself proves nothing: it must come up with every provider away.

pub(super) mod error;
mod waiting;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use self::error::{ReloadError, TURN_TIMEOUT};
use self::waiting::{needs_reseal, needs_restart};
use super::look::Looks;
use super::proof::prove;
use super::remote::{Fresh, Made, Opened, Remote};
use crate::audit::{Event, emit};
use crate::config::{self, Config};
use crate::control::report::Pending;
use crate::keyring::keeper::{KeeperHandle, Next, Overview, Proof};
use crate::keyring::rooted::Rooted;
use crate::keyring::{Home, KeeperError};
use crate::provider::set::Specimen;
use crate::sandbox::Confined;
use crate::seal::client::SealerClient;
use crate::store::{OnlyLook, RunFile, StateDir};
use crate::types::{Chain, Explained, SealTo, lock};

/// Between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Pauses between two attempts to take up files that were refused.
const AGAIN_MIN: Duration = Duration::from_secs(5);
const AGAIN_MAX: Duration = Duration::from_secs(300);

/// What runs, and how it is changed.
pub(super) struct Reloader {
    keeper: KeeperHandle,
    remote: Remote,
    confined: Confined,
    /// Two reloads go one after the other.
    is_under_way: Mutex<bool>,
    ended: Condvar,
    runs: Mutex<Runs>,
}

struct Runs {
    config: Config,
    opened: Option<Arc<Opened>>,
    /// What has proved itself for something that was refused, with its login: another proof might have to make one that cannot be made twice.
    spare: Vec<Made>,
    /// Of the file as it was read last: keys whose new value nothing takes up, and how a node root is sealed from then on.
    waiting: Vec<&'static str>,
    seal_to: SealTo,
    guard: Option<u32>,
    /// The file as it was refused last, while nothing has been taken up since.
    refused: Option<Refused>,
    /// Providers whose changed credential or files were refused: they go on with what they have.
    refused_files: Vec<String>,
    /// Providers with what the sandbox keeps them from, for people.
    lost: Vec<String>,
}

impl Reloader {
    /// Opens the providers of the first configuration, without asking them anything.
    pub(super) fn new(
        config: Config,
        keeper: KeeperHandle,
        sealer: SealerClient,
        confined: Confined,
        login_tries: Option<RunFile>,
    ) -> io::Result<Self> {
        let remote = Remote::new(keeper.clone(), &config, sealer, login_tries);
        let wanted = config.providers.as_ref();
        let opened = wanted
            .map(|wanted| remote.open(wanted, None, &[], Fresh::But(&HashSet::new()), folder(&config).as_deref()))
            .transpose()?
            .map(Arc::new);
        let (seal_to, guard) = (config.seal.to(), config.seal.guard);
        Ok(Self {
            keeper,
            remote,
            confined,
            is_under_way: Mutex::default(),
            ended: Condvar::new(),
            runs: Mutex::new(Runs {
                config,
                opened,
                spare: Vec::new(),
                waiting: Vec::new(),
                seal_to,
                guard,
                refused: None,
                refused_files: Vec::new(),
                lost: Vec::new(),
            }),
        })
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
    pub(super) fn reload_and_tell(&self, reason: &'static str) {
        // Whoever does not answer an operator waits for its turn.
        let _ = told(reason, self.turn(Duration::MAX).and_then(|_turn| self.try_reload(None)));
    }

    /// Reads the file anew, and with it the files of all providers.
    pub(super) fn reload(&self, abandon: Option<Proof>, reason: &'static str) -> Result<(), ReloadError> {
        told(reason, self.turn(TURN_TIMEOUT).and_then(|_turn| self.try_reload(abandon)))
    }

    fn turn(&self, patience: Duration) -> Result<Turn<'_>, ReloadError> {
        let busy = lock::lock(&self.is_under_way);
        let mut busy = lock::wait_while_for(&self.ended, busy, patience, |busy| *busy);
        if std::mem::replace(&mut *busy, true) { Err(ReloadError::Busy) } else { Ok(Turn(self)) }
    }

    fn try_reload(&self, abandon: Option<Proof>) -> Result<(), ReloadError> {
        // Before it is read: what is written meanwhile is another file.
        let looks = self.look_at_config(&Looks::default());
        let done = self.try_file(abandon);
        let is_refused = done.as_ref().is_err_and(|error| !matches!(error, ReloadError::Files(_)));
        let mut runs = self.runs();
        runs.refused = is_refused.then(|| Refused::again(looks, runs.refused.as_ref()));
        done
    }

    fn try_file(&self, abandon: Option<Proof>) -> Result<(), ReloadError> {
        let running = self.config();
        let config = config::load(&running.path).map_err(ReloadError::Config)?;
        for warning in &config.warnings {
            emit(&Event::ConfigWarned { key: &warning.key, text: &warning.text });
        }
        if config.cluster != running.cluster {
            return Err(ReloadError::Cluster { was: running.cluster });
        }
        let waiting = needs_restart(&running, &config);
        for key in &waiting {
            emit(&Event::ConfigWarned { key, text: "takes effect with the next start of nodeseald" });
        }
        // Known also where the rest is refused. What a reseal takes effect by, it reads from the file itself.
        self.note(waiting, config.seal.to(), config.seal.guard);
        // Of the new file only the providers take effect.
        let next = Config { providers: config.providers.clone(), ..running };
        if let Some(lack) = self.confined.lacks(&next.daemon_needs()) {
            return Err(ReloadError::Confined { lack, has_any: next.sandbox.any_provider });
        }
        let taken = self.take_up(&next, None, abandon);
        if taken.as_ref().is_err_and(|error| !matches!(error, ReloadError::Files(_))) {
            return taken;
        }
        // Only what has taken effect: the next comparison is with what runs.
        let mut runs = self.runs();
        runs.config.providers = config.providers;
        runs.config.watch = config.watch;
        runs.config.warnings = config.warnings;
        taken
    }

    /// Opens one provider of the running configuration anew. What may stand in its file by now is not looked at.
    fn refresh(&self, name: &str) -> Result<(), ReloadError> {
        let _turn = self.turn(Duration::MAX)?;
        self.take_up(&self.config(), Some(name), None)
    }

    /// All of them, or `only` one of those that run.
    fn take_up(&self, next: &Config, only: Option<&str>, abandon: Option<Proof>) -> Result<(), ReloadError> {
        let mut spare = std::mem::take(&mut self.runs().spare);
        let done = self.try_to_take_up(next, only, abandon, &mut spare);
        let is_in_force = matches!(done, Ok(()) | Err(ReloadError::Files(_)));
        match only {
            None if is_in_force => spare.clear(),
            Some(name) if is_in_force => spare.retain(|made| made.name() != name),
            None => {
                spare.retain(|made| next.providers.iter().any(|wanted| wanted.list.iter().any(|one| made.is_of(one))))
            }
            Some(_) => {}
        }
        self.runs().spare = spare;
        done
    }

    /// A provider whose table is as it was and whose new files are refused stays with those that it had, which is told in the end: what it
    /// runs with is better than nothing, and the rest does not wait for it.
    fn try_to_take_up(
        &self,
        next: &Config,
        only: Option<&str>,
        abandon: Option<Proof>,
        spare: &mut Vec<Made>,
    ) -> Result<(), ReloadError> {
        let before = self.runs().opened.clone();
        let folder = folder(next);
        let (mut kept, mut refused) = (HashSet::new(), None);
        let (opened, openers, silent) = loop {
            let Some(wanted) = &next.providers else { break (None, HashSet::new(), Vec::new()) };
            let specimens = self.specimens(only.is_none())?;
            let fresh = only.map_or(Fresh::But(&kept), Fresh::One);
            let opened = self.remote.open(wanted, before.as_deref(), spare, fresh, folder.as_deref());
            let opened = opened.map_err(ReloadError::Runtime)?;
            let rooted = before.as_deref().map(|before| &*before.rooted);
            let proofs = prove(&opened, rooted, specimens, &next.cluster)?;
            for made in opened.made_anew(&proofs.proved) {
                spare.retain(|spare| !made.replaces(spare));
                spare.push(made.clone());
            }
            if proofs.refused.is_empty() {
                break (Some(opened), proofs.openers, proofs.silent);
            }
            let stays = |name: &str| only.is_none() && opened.refreshed.contains(name);
            for error in proofs.refused {
                let name = error.provider().map(str::to_owned);
                let error = self.explained(next, error);
                match name.filter(|name| stays(name)) {
                    Some(name) => drop(kept.insert(name)),
                    None => return Err(error),
                }
                refused.get_or_insert(error);
            }
        };
        let rooted = opened.as_ref().map(|opened| Arc::clone(&opened.rooted));
        let done = self.keeper.configure(Next { rooted, openers }, abandon);
        done.map_err(|source| ReloadError::Keeper { silent, source })?;
        self.runs().opened = opened.map(|mut opened| {
            opened.take_effect();
            Arc::new(opened)
        });
        refused.map_or(Ok(()), |error| Err(ReloadError::Files(Box::new(error))))
    }

    /// Without them nobody could show what it opens.
    fn specimens(&self, is_of_all: bool) -> Result<Vec<Specimen>, ReloadError> {
        let specimens = self.keeper.specimens();
        if is_of_all && matches!(specimens, Err(KeeperError::Locked)) {
            // While the keys are closed, a new configuration is what makes the keeper try at once to open them.
            let _ = self.keeper.configure(Next { rooted: self.rooted(), openers: HashSet::new() }, None);
        }
        Ok(specimens?)
    }

    /// What keeps a provider from its files may be this process's own confinement.
    fn explained(&self, next: &Config, error: ReloadError) -> ReloadError {
        let wanted = next.providers.iter().flat_map(|wanted| &wanted.list);
        let provider = wanted.into_iter().find(|provider| error.provider() == Some(&provider.name));
        match provider.and_then(|provider| Some((provider.name.clone(), self.confined.lost(&provider.own_needs())?))) {
            Some((provider, lost)) => ReloadError::Lost { provider, lost },
            None => error,
        }
    }

    fn note(&self, waiting: Vec<&'static str>, seal_to: SealTo, guard: Option<u32>) {
        let mut runs = self.runs();
        (runs.waiting, runs.seal_to, runs.guard) = (waiting, seal_to, guard);
    }

    /// What the file says and what does not run. `sealed` is how the node root is sealed, where that is known.
    pub(super) fn pending(&self, sealed: Option<&Overview>) -> Vec<Pending> {
        let runs = self.runs();
        let refused = runs.refused.iter().map(|_| Pending::reload("provider"));
        let files = runs.refused_files.iter();
        let files = files.map(|name| Pending::reload(&format!("a changed credential or file of provider {name}")));
        let lost = runs.lost.iter().map(|lost| Pending::restart(lost));
        let restarts = runs.waiting.iter().map(|key| Pending::restart(key)).chain(lost);
        let reseals = sealed.map(|sealed| needs_reseal(sealed, runs.seal_to, runs.guard)).unwrap_or_default();
        refused.chain(files).chain(restarts).chain(reseals.into_iter().map(Pending::reseal)).collect()
    }

    fn runs(&self) -> MutexGuard<'_, Runs> {
        lock::lock(&self.runs)
    }

    /// Looks at the files for ever. Each provider is for itself: one that is away keeps no other from a new login.
    pub(super) fn watch(&self) {
        let mut known = self.look_at_config(&Looks::default());
        let mut refused: HashMap<String, Refused> = HashMap::new();
        loop {
            thread::sleep(LOOK_EVERY);
            let now = self.look_at_config(&known);
            if (now != known || self.is_due_again(&now)) && self.config().watch {
                self.reload_and_tell(CHANGED);
            }
            known = now;
            let (config, opened) = {
                let runs = self.runs();
                (runs.config.clone(), runs.opened.clone())
            };
            let stale = opened.map(|opened| opened.stale(&config, folder(&config).as_deref())).unwrap_or_default();
            refused.retain(|name, _| stale.iter().any(|(stale, _)| stale == name));
            for (name, looks) in stale {
                if refused.get(&name).is_some_and(|before| before.looks == looks && !before.is_due()) {
                    continue;
                }
                if told(CHANGED, self.refresh(&name)).is_err() {
                    let next = Refused::again(looks, refused.get(&name));
                    refused.insert(name, next);
                }
            }
            let lost = self.lost(&config);
            let mut runs = self.runs();
            runs.refused_files = refused.keys().cloned().collect();
            runs.lost = lost;
        }
    }

    /// Folders that were removed and created again, which no reload gives back. Looked at here: a file system that hangs keeps no `status` waiting.
    fn lost(&self, config: &Config) -> Vec<String> {
        let providers = config.providers.iter().flat_map(|providers| &providers.list);
        let lost = providers.filter_map(|provider| {
            let lost = self.confined.lost(&provider.own_needs())?;
            Some(format!("provider {}: {lost}", provider.name))
        });
        lost.collect()
    }

    /// What refused the file may have passed, such as a provider that was away.
    fn is_due_again(&self, now: &Looks) -> bool {
        self.runs().refused.as_ref().is_some_and(|refused| refused.looks != *now || refused.is_due())
    }

    fn look_at_config(&self, before: &Looks) -> Looks {
        Looks::at([self.config().path], before)
    }
}

/// Where the files of the node root lie, if there is one: another root has another folder. The keeper is not asked, which may be busy with
/// a device.
fn folder(config: &Config) -> Option<PathBuf> {
    let home = StateDir::open_on(OnlyLook, &config.state_dir).and_then(Home::find).ok()?;
    Some(home.root.path().to_owned())
}

/// A reload that is under way.
struct Turn<'a>(&'a Reloader);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *lock::lock(&self.0.is_under_way) = false;
        self.0.ended.notify_one();
    }
}

const CHANGED: &str = "a file has changed";

/// The configuration, or files of a provider, that were not taken up.
struct Refused {
    looks: Looks,
    pause: Duration,
    again_at: Instant,
}

impl Refused {
    /// Just now. The same files as `before` wait for longer each time.
    fn again(looks: Looks, before: Option<&Self>) -> Self {
        let before = before.filter(|before| before.looks == looks);
        let pause = before.map_or(AGAIN_MIN, |before| (before.pause * 2).min(AGAIN_MAX));
        Self { looks, pause, again_at: Instant::now() + pause }
    }

    fn is_due(&self) -> bool {
        Instant::now() >= self.again_at
    }
}

fn told(reason: &'static str, done: Result<(), ReloadError>) -> Result<(), ReloadError> {
    match &done {
        Ok(()) => emit(&Event::ConfigReloaded { reason }),
        Err(error) => {
            emit(&Event::ConfigRefused { reason, error: &Chain(error).to_string(), hint: error.hint() });
        }
    }
    done
}
