//! The start of the keeper: it tries until the keys are open, and answers every question meanwhile.
//!
//! Everything that it writes after the keys are open is tried and not needed: a disk that takes nothing keeps nothing closed.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::arrival::{Arrival, Message};
use super::books::{Books, Change, NewKek, Sealing};
use super::errands::Errands;
use super::keys::Keys;
use super::others::Others;
use super::probes::Probes;
use super::request::Request;
use super::uses::Blocks;
use super::{Derived, Keeper, Settings, check, rotation, trouble};
use crate::audit::{Event, emit};
use crate::keyring::bundle::{self, OpenRequest};
use crate::keyring::error::KeeperError;
use crate::keyring::evidence::Evidence;
use crate::keyring::files::{self, INIT_MARKER, RECOVER_MARKER};
use crate::keyring::home::Home;
use crate::keyring::kek_file::KekLabel;
use crate::keyring::kek_store::draw_kek;
use crate::keyring::live::{Keyring, SealRefusal};
use crate::keyring::open::{self, Opened, Opening, Trust};
use crate::keyring::ring::KekState;
use crate::keyring::ring::resume::Encrypts;
use crate::keyring::state_file::State;
use crate::sandbox::memory::LockedKey;
use crate::seal::root::NodeRoot;
use crate::store::{Disk, Kind, StateDir};
use crate::types::stack::{self, KEEPER_BYTES};
use crate::types::{Chain, Explained};

/// First and last pause between attempts to open the keys.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Between two looks at a PIN file whose PIN was refused.
pub(in crate::keyring) const PIN_LOOK_EVERY: Duration = Duration::from_secs(2);

/// What tells one content of a file from another without reading it: a file that is written or replaced changes it.
#[derive(PartialEq, Eq)]
struct Mark(Option<(u64, u64, u64, i64, i64)>);

impl Mark {
    fn of(path: &Path) -> Self {
        let meta = std::fs::metadata(path).ok();
        Self(meta.map(|meta| (meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec())))
    }
}

/// See the module. `None` when a stop was asked for.
pub(super) fn unlock<'a, D: Disk + Clone>(
    settings: &'a Settings<D>,
    keyring: &'a Keyring,
    own: &'a Sender<Message>,
    messages: &Receiver<Message>,
) -> Option<Keeper<'a, D>> {
    let started = Instant::now();
    let mut backoff = super::backoff::Backoff::new(RETRY_MIN, RETRY_MAX);
    loop {
        let opened = stack::wiped::<KEEPER_BYTES, _>(|| Keeper::open(settings, keyring, own, Trust::Guarded));
        let error = match opened {
            Ok(mut keeper) => {
                emit(&Event::SealOpened { keys: keeper.keys.count(), took: started.elapsed() });
                keeper.meet_providers();
                return Some(keeper);
            }
            Err(error) => error,
        };
        let now = Instant::now();
        let pause = backoff.failed(now);
        // A token has few tries, and may not tell how many are left: the same PIN is not given to it twice.
        let refused_pin =
            settings.pin_file.as_deref().filter(|_| error.is_wrong_pin()).map(|path| (path, Mark::of(path)));
        let mut retry_at = now + pause;
        keyring.lock(SealRefusal {
            error: Chain(&error).to_string(),
            hint: error.hint().to_owned(),
            retry_at,
            waits_for: refused_pin.as_ref().map(|(path, _)| path.to_path_buf()),
        });
        emit(&Event::SealRefused {
            class: error.class(),
            error: &Chain(&error).to_string(),
            hint: error.hint(),
            retry_in: pause,
        });
        loop {
            match messages.recv_timeout(retry_at.saturating_duration_since(Instant::now())) {
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return None,
                Ok(Message::Request(asked)) => {
                    let Some(request) = asked.begin() else { continue };
                    // The operator has changed something, or says so.
                    let is_reload = matches!(request, Request::Configure(..));
                    request.refuse();
                    if is_reload {
                        break;
                    }
                }
                Ok(Message::Arrival(_)) => {}
                Err(RecvTimeoutError::Timeout) => match &refused_pin {
                    Some((path, mark)) if Mark::of(path) == *mark => retry_at = Instant::now() + PIN_LOOK_EVERY,
                    Some(_) | None => break,
                },
            }
        }
    }
}

impl<'a, D: Disk + Clone> Keeper<'a, D> {
    pub(super) fn open(
        settings: &'a Settings<D>,
        keyring: &'a Keyring,
        own: &'a Sender<Message>,
        trust: Trust,
    ) -> Result<Self, KeeperError> {
        let top = StateDir::open_on(settings.disk.clone(), &settings.state_dir).map_err(KeeperError::Store)?;
        let home = Home::of(top)?;
        let opening = Opening {
            cluster: &settings.cluster,
            sealer: &settings.sealer,
            trust,
            guard: settings.guard,
            now: (settings.now)(),
        };
        let opened = open::open(&home, &opening).map_err(|error| match home.top.exists(RECOVER_MARKER) {
            Ok(true) => KeeperError::RecoveryPending,
            Ok(false) | Err(_) => error,
        })?;
        let Opened { state, root, keks, encrypts, has_changed, owed } = opened;
        let locked = |key| LockedKey::new(key).map_err(KeeperError::Memory);
        let cluster = &settings.cluster;
        let derived = Derived {
            counter_auth: Arc::new(locked(root.counter_auth(cluster))?),
            credential_key: locked(root.credential_key(cluster))?,
            member_seed: locked(root.member_seed(cluster))?,
            pin: root.sealed().blob.clone(),
        };
        if settings.guard.is_some() && state.guard.is_none() {
            emit(&Event::StateUnguarded);
        }
        let mut books = Books::new(home, cluster.clone(), Sealing::of(&root, cluster)?, state, settings.now);
        books.is_count_owed = owed;
        let mut keeper = Self {
            settings,
            keyring,
            own,
            books,
            keys: Keys::default(),
            errands: Errands::new(),
            probes: Probes::default(),
            made_for: None,
            others: Others::default(),
            blocks: Blocks::default(),
            rotation: rotation::Rotation::default(),
            check: check::Check::default(),
            evidence: Evidence::default(),
            openers_told: HashSet::new(),
            marks_full_told: false,
            turned: None,
            derived,
            started: Instant::now(),
            foreign_since: (settings.now)(),
        };
        for (id, key) in keks {
            let ring = keeper.books.ring().clone();
            keeper.keys.take_in(id, key, &ring)?;
        }
        keeper.load_wraps();
        keeper.load_evidence();
        keeper.tidy_up();
        keeper.resume(&root, encrypts, has_changed)?;
        // What one generation lacked, the other one gives. Writes nothing while all is well.
        keeper.look_at_files(Some(&root), &mut super::CheckReport::default());
        // Before anybody sees a key_id: one that is due is not reported once more. For one that does not open it was just tried.
        if keeper.is_rotation_due() && !keeper.is_dead() {
            keeper.errands.want(super::errands::Errand::Rotate);
            keeper.rotate_since_due(Ok(root));
        }
        keeper.publish();
        keeper.list_errands();
        keeper.pay_guard(Instant::now());
        Ok(keeper)
    }

    /// What the start has decided comes onto the disk, and the first block of uses.
    fn resume(&mut self, root: &NodeRoot, encrypts: Encrypts, has_changed: bool) -> Result<(), KeeperError> {
        // Before anybody sees a key_id: one that may have been left is not reported once more.
        if encrypts == Encrypts::New {
            let left = self.leave_active(root);
            // It does not open, so that it is reported for nothing: providers make a key for each text until there is room for another.
            let encrypts_nothing = !self.keys.has(&self.ring().active().id);
            return left.or_else(|error| match encrypts_nothing {
                true => {
                    trouble("make a KEK to replace the active one, which does not open", &error);
                    Ok(())
                }
                false => Err(error),
            });
        }
        if has_changed {
            // It may have a KEK more, whose file was found.
            self.books.is_recovery_owed |= !self.state().recipients.is_empty();
            let change = Change::of_memory(self.state().clone());
            if let Err(error) = self.change(change) {
                // What was read is what the disk says; what the start makes of it, the next one does as well.
                trouble("write what this start has made of the state", &error);
            }
        }
        // The first KEK of a node with providers is used by nobody before they have wrapped it.
        let waits = self.keyring.writing().is_some() && self.has_no_text();
        if !waits && encrypts == Encrypts::Active {
            self.reserve_first();
        }
        Ok(())
    }

    /// Makes a KEK and turns to it, since what was lost may have left the active one. In one write: a whole state with the old KEK
    /// would be believed by the next start.
    fn leave_active(&mut self, root: &NodeRoot) -> Result<(), KeeperError> {
        let now = (self.settings.now)();
        let (entry, key) = draw_kek(now)?;
        let id = entry.id;
        let ring = self.ring().with_pending(entry).and_then(|ring| ring.activate(&id, now));
        let ring = ring.map_err(KeeperError::Move)?;
        // Where providers are to have copies, it encrypts nothing before they have, or are known to be away.
        let waits = self.keyring.writing().is_some_and(|rooted| rooted.rules.local_kek);
        let ring = if waits { ring } else { ring.with_reservation(self.blocks.first()) };
        self.adopt_new(root, self.state().turned(ring), id, key, true)?;
        emit(&Event::KeyCreated { kek: &id });
        emit(&Event::KeyActivated { kek: &id, key_id: &self.key_id() });
        Ok(())
    }

    /// A KEK that is on no disk yet gets its sealed copy, and then the state names it.
    pub(super) fn adopt_new(
        &mut self,
        root: &NodeRoot,
        next: State,
        id: crate::types::KekId,
        key: crate::types::Key,
        is_of_keys: bool,
    ) -> Result<(), KeeperError> {
        let created = next.ring.entries().find(|(entry, _)| entry.id == id).map_or(0, |(entry, _)| entry.created);
        self.keys.take_in(id, key, &next.ring)?;
        let Some(copy) = self.keys.get(&id).map(|kek| kek.copy_key()) else { return Err(KeeperError::Locked) };
        let new = vec![NewKek { label: KekLabel { id, created }, key: &copy }];
        let changed = self.change(Change { next, new: Some((root, new)), is_of_keys });
        if changed.is_err() {
            self.keys.forget(&id);
        }
        changed
    }

    /// What a stop between two steps has left. None of it is needed by what opens.
    fn tidy_up(&mut self) {
        if let Err(error) = self.try_to_tidy_up() {
            trouble("remove what an earlier stop has left", &error);
        }
    }

    fn try_to_tidy_up(&mut self) -> Result<(), KeeperError> {
        let store = KeeperError::Store;
        // A power cut between record and file leaves the file: the record counts.
        let ring = self.ring().clone();
        for (entry, _) in ring.entries().filter(|(_, state)| *state == KekState::Destroyed) {
            self.destroy_files(&entry.id)?;
        }
        self.books.home.tidy().map_err(store)?;
        for folder in [""].into_iter().chain(files::FOLDERS) {
            self.books.home.root.sweep(folder).map_err(store)?;
        }
        self.books.home.top.sweep("").map_err(store)?;
        // All that founding makes is there and opens: from here on something may be encrypted, and it must not be made anew.
        for marker in [INIT_MARKER, RECOVER_MARKER] {
            if self.books.home.top.exists(marker).map_err(store)? {
                self.books.home.top.destroy(marker).map_err(store)?;
            }
        }
        // The secret half of a request that nobody may answer any more.
        let now = (self.settings.now)();
        let read = |_, bytes: &[u8]| OpenRequest::decode(bytes);
        if let Ok(request) = self.books.home.root.load(bundle::REQUEST_FILE, Kind::BundleRequest, read)
            && request.value.is_expired(now)
        {
            self.books.home.root.destroy(bundle::REQUEST_FILE).map_err(store)?;
        }
        Ok(())
    }

    /// Before the process ends: how often the active KEK was used, and the counter of the guard catches up, so that the state
    /// directory is guarded while the machine is off. A device that does not answer in time is left to the next start.
    pub(super) fn finish(&mut self, messages: &Receiver<Message>) {
        let give_up = Instant::now() + FINISH_TIMEOUT;
        self.give_back_uses();
        self.errands.hurry(super::errands::Errand::Count);
        self.pay_guard(Instant::now());
        while self.books.is_count_owed && self.errands.is_counting() {
            match messages.recv_timeout(give_up.saturating_duration_since(Instant::now())) {
                Ok(Message::Arrival(Arrival::Counted(counted))) => {
                    self.counted(counted);
                    self.pay_guard(Instant::now());
                }
                Ok(Message::Request(asked)) => asked.begin().into_iter().for_each(Request::refuse),
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }
}

/// Below the time that the daemon gives its keeper to end.
const FINISH_TIMEOUT: Duration = Duration::from_millis(1500);
