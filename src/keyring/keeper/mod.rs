//! The owner of the keys on disk: one thread that opens them, alone writes to the state directory, and publishes to the [`Keyring`].
//!
//! Order of every change: new files first, then `state`, then memory. What kube-apiserver can see is always on disk already. A
//! rotation opens the node root by the device once more, so that a device that would not open it at the next boot is noticed now.
//! Devices are asked on a thread of their own, one question at a time: one that hangs stops neither reservations nor `status`.
//! It retries for ever when the keys cannot be opened: the process that holds the socket does not exit over a device.

mod bundles;
mod change;
mod credentials;
mod debts;
mod foreign;
mod handle;
mod offline;
mod remote;
mod report;
mod reseal;
mod rotation;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use self::handle::Command;
pub use self::handle::{KeeperHandle, KekRow, KeyTable, Overview, ResealOrder, RootsReport};
pub use self::offline::with_keeper;
use self::remote::Remote;
use crate::audit::{Event, emit};
use crate::keyring::cryptoperiod::MaxAge;
use crate::keyring::error::KeeperError;
use crate::keyring::found::{FOLDERS, INIT_MARKER, RECOVER_MARKER};
use crate::keyring::live::{Ask, Keyring, LiveKek, Snapshot};
use crate::keyring::open::{self, Opened, Trust};
use crate::keyring::ring::{KekState, MoveError, RetireTo, Ring};
use crate::keyring::state_file::State;
use crate::keyring::uses::{RESERVED_BLOCK_USES, UseCounter};
use crate::keyring::wraps_file::{self, WrapSet};
use crate::keyring::{kek_file, uses};
use crate::sandbox::Protection;
use crate::sandbox::memory::LockedKey;
use crate::seal::client::SealerClient;
use crate::seal::credential;
use crate::store::{Disk, Kind, RealDisk, StateDir};
use crate::types::clock::UnixSeconds;
use crate::types::stack::{self, KEEPER_BYTES};
use crate::types::{Chain, ClusterId, KekId, Key, RootId};

/// Between two looks at age and uses.
const TICK: Duration = Duration::from_secs(60);
/// First and last pause between attempts to open the keys.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What the keeper works with.
pub struct Settings<D: Disk = RealDisk> {
    /// Where the state directory is.
    pub disk: D,
    /// The state directory.
    pub state_dir: PathBuf,
    /// Goes into every AAD.
    pub cluster: ClusterId,
    /// Who opens the node root.
    pub sealer: SealerClient,
    /// When a KEK is replaced without being asked.
    pub max_age: MaxAge,
    /// The configuration asks for a guarded state directory.
    pub guarded: bool,
    /// The clock.
    pub now: fn() -> UnixSeconds,
}

/// A keyring without keys, the handle to its keeper, and the keeper's thread body, which returns on [`KeeperHandle::stop`].
pub fn new<D: Disk + Clone + Send>(settings: Settings<D>) -> (Arc<Keyring>, KeeperHandle, impl FnOnce() + Send) {
    let (sender, commands) = channel();
    let handle = KeeperHandle(sender.clone());
    let own = sender.clone();
    let ask = move |what| {
        // Fails only when the keeper has stopped.
        let _ = sender.send(match what {
            Ask::Block => Command::Reserve,
            Ask::Keep(kek) => Command::Keep(kek),
            Ask::Seen(seen) => Command::Seen(seen),
        });
    };
    let keyring = Arc::new(Keyring::opening(settings.cluster.clone(), ask));
    let published = Arc::clone(&keyring);
    (keyring, handle, move || run(&settings, &published, &own, &commands))
}

fn run<D: Disk + Clone>(
    settings: &Settings<D>,
    keyring: &Keyring,
    own: &Sender<Command>,
    commands: &Receiver<Command>,
) {
    let Some(mut keeper) = unlock(settings, keyring, own, commands) else { return };
    let mut next_tick = Instant::now() + TICK;
    loop {
        match commands.recv_timeout(next_tick.saturating_duration_since(Instant::now())) {
            Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => return keeper.finish(commands),
            Ok(command) => stack::wiped::<KEEPER_BYTES, _>(|| keeper.answer(command)),
            Err(RecvTimeoutError::Timeout) => {
                next_tick = Instant::now() + TICK;
                keeper.pay_guard();
            }
        }
        stack::wiped::<KEEPER_BYTES, _>(|| {
            keeper.keep_foreign();
            keeper.rotate_if_due();
            keeper.pursue();
        });
    }
}

/// Tries until the keys are open; answers every question meanwhile.
fn unlock<'a, D: Disk + Clone>(
    settings: &'a Settings<D>,
    keyring: &'a Keyring,
    own: &'a Sender<Command>,
    commands: &Receiver<Command>,
) -> Option<Keeper<'a, D>> {
    let started = Instant::now();
    let mut pause = RETRY_MIN;
    loop {
        let opened = stack::wiped::<KEEPER_BYTES, _>(|| Keeper::open(settings, keyring, own, Trust::Guarded));
        let error = match opened {
            Ok(mut keeper) => {
                emit(&Event::SealOpened { keys: keeper.keks.len(), took: started.elapsed() });
                keeper.meet_providers();
                return Some(keeper);
            }
            Err(error) => error,
        };
        keyring.lock();
        emit(&Event::SealRefused {
            class: error.class(),
            error: &Chain(&error).to_string(),
            hint: error.hint(),
            retry_in: pause,
        });
        let retry_at = Instant::now() + pause;
        loop {
            match commands.recv_timeout(retry_at.saturating_duration_since(Instant::now())) {
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => return None,
                Ok(command) => command.refuse(),
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
        pause = (pause * 2).min(RETRY_MAX);
    }
}

struct Keeper<'a, D: Disk> {
    settings: &'a Settings<D>,
    keyring: &'a Keyring,
    /// Where answers of the device come back.
    own: &'a Sender<Command>,
    dir: StateDir<D>,
    root_id: RootId,
    mac_key: LockedKey,
    counter_auth: Arc<LockedKey>,
    credential_key: LockedKey,
    state: State,
    keks: HashMap<KekId, Arc<LiveKek>>,
    /// Copies by providers of KEKs that this node has made.
    wraps: HashMap<KekId, WrapSet>,
    remote: Remote,
    /// KEKs of other nodes without a sealed copy here, and after the device has failed over them: when to ask it again.
    to_keep: Vec<Arc<LiveKek>>,
    keep_retry: Option<Instant>,
    /// What times of probes are counted from.
    started: Instant,
    /// A question to the device is under way.
    device_is_asked: bool,
    /// The counter that guards the state has to count once more.
    guard_owed: bool,
    /// The question that is under way is one that nobody has asked for: a count, a rotation that is due, a copy to be kept.
    is_own_errand: bool,
    /// What waits for its end.
    queued: Vec<Command>,
    /// When the operator was last told that a shared KEK is due.
    overdue_told: Option<Instant>,
    /// Recorded as destroyed, and the disk has not let go of their files.
    undestroyed: HashSet<KekId>,
    /// After a rotation that was due has failed: when to try again, and the pause before it.
    rotation_retry: Option<(Instant, Duration)>,
}

impl<'a, D: Disk + Clone> Keeper<'a, D> {
    fn open(
        settings: &'a Settings<D>,
        keyring: &'a Keyring,
        own: &'a Sender<Command>,
        trust: Trust,
    ) -> Result<Self, KeeperError> {
        let dir = StateDir::open_on(settings.disk.clone(), &settings.state_dir).map_err(KeeperError::Store)?;
        let opened = open::open(&dir, &settings.cluster, &settings.sealer, trust, (settings.now)());
        let opened = opened.map_err(|error| match dir.exists(RECOVER_MARKER) {
            Ok(true) => KeeperError::RecoveryPending,
            Ok(false) | Err(_) => error,
        })?;
        let Opened { state, root, mac_key, keks, fell_back, owed, counter_auth, credential_key } = opened;
        let credential_key = LockedKey::new(credential_key).map_err(KeeperError::Memory)?;
        let mac_key = LockedKey::new(mac_key).map_err(KeeperError::Memory)?;
        let counter_auth = Arc::new(LockedKey::new(counter_auth).map_err(KeeperError::Memory)?);
        if settings.guarded && state.guard.is_none() {
            emit(&Event::StateUnguarded);
        }
        let used = state.ring.active().uses_reserved;
        let mut keeper = Self {
            settings,
            keyring,
            own,
            dir,
            root_id: root.id(),
            mac_key,
            counter_auth,
            credential_key,
            state,
            keks: HashMap::new(),
            wraps: HashMap::new(),
            remote: Remote::default(),
            to_keep: Vec::new(),
            keep_retry: None,
            started: Instant::now(),
            device_is_asked: false,
            guard_owed: owed,
            is_own_errand: false,
            queued: Vec::new(),
            overdue_told: None,
            undestroyed: HashSet::new(),
            rotation_retry: None,
        };
        for (id, key) in keks {
            keeper.take_in(id, key)?;
        }
        keeper.load_wraps();
        keeper.finish_destruction()?;
        for folder in [""].into_iter().chain(FOLDERS).chain([credential::DIR]) {
            keeper.dir.sweep(folder).map_err(KeeperError::Store)?;
        }
        // All that founding makes is there and opens: from here on something may be encrypted, and it must not be made anew.
        for marker in [INIT_MARKER, RECOVER_MARKER] {
            if keeper.dir.exists(marker).map_err(KeeperError::Store)? {
                keeper.dir.destroy(marker).map_err(KeeperError::Store)?;
            }
        }
        // The first KEK of a node with providers is used by nobody before they have wrapped it.
        let waits = keyring.rooted().is_some() && keeper.has_no_text();
        let ring = match waits {
            true => keeper.state.ring.clone(),
            false => keeper.state.ring.with_reservation(used + RESERVED_BLOCK_USES),
        };
        // Before anybody sees a key_id: one that is due, or may have been left, is not reported once more.
        if fell_back && (!ring.active().shared || !keeper.keks.contains_key(&ring.active().id)) {
            keeper.leave_active(&root, &ring)?;
        } else {
            keeper.commit(ring)?;
            if keeper.is_rotation_due() {
                keeper.rotate_since_due(Ok(root));
            }
        }
        keeper.publish();
        keeper.pay_guard();
        Ok(keeper)
    }

    fn answer(&mut self, command: Command) {
        // The device works for us: no reason to send an operator away.
        if self.is_own_errand && command.asks_the_device() {
            return self.queued.push(command);
        }
        let _ = match command {
            Command::BundleAccept(file, fingerprint, reply) => self.bundle_accept(&file, &fingerprint, reply),
            Command::BundleImported(reply, imported) => reply.send(self.bundle_imported(*imported)).is_ok(),
            Command::BundleMake(file, fingerprint, reply) => reply.send(self.bundle_make(&file, &fingerprint)).is_ok(),
            Command::BundleRequest(node, reply) => self.bundle_request(node, reply),
            Command::BundleRequested(node, reply, parent) => reply.send(self.bundle_requested(node, parent)).is_ok(),
            Command::Configure(rooted, abandon, reply) => reply.send(self.configure(rooted, abandon)).is_ok(),
            Command::CredentialOpen(name, reply) => reply.send(self.open_credential(&name)).is_ok(),
            Command::CredentialReplace(name, content, reply) => {
                reply.send(self.replace_credential(&name, &content)).is_ok()
            }
            Command::CredentialStore(name, payload, reply) => {
                reply.send(self.store_credential(&name, &payload)).is_ok()
            }
            Command::Keep(kek) => self.keep(kek),
            Command::Probed(name, seen) => self.probed(name, seen),
            Command::Seen(seen) => self.seen(seen),
            Command::Wrapped(kek, outcome, purpose) => self.wrapped(kek, *outcome, purpose),
            Command::Counted(counted) => self.counted(counted),
            Command::Activate(id, reply) => reply.send(self.activate(&id)).is_ok(),
            Command::List(reply) => reply.send(Ok(self.table())).is_ok(),
            Command::Overview(reply) => reply.send(self.overview()).is_ok(),
            Command::Opened(purpose, root) => self.opened(purpose, root),
            Command::Reseal(order, reply) => self.reseal(order, reply),
            Command::Resealed(reply, resealed) => reply.send(self.resealed(*resealed)).is_ok(),
            Command::Reserve => self.reserve(),
            Command::Retire(id, to, reply) => reply.send(self.retire(&id, to)).is_ok(),
            Command::Rotate(reply) => self.rotate(reply),
            Command::Stop => true,
        };
    }

    fn retire(&mut self, id: &KekId, to: RetireTo) -> Result<KeyTable, KeeperError> {
        match self.state.ring.retire(id, to, (self.settings.now)()) {
            // The record first: a power cut must not leave a ring that counts on a file that is gone.
            Ok(ring) => self.change(ring)?,
            // The record is there, and the disk has not let go of the file.
            Err(MoveError::Destroyed) if to == RetireTo::Destroyed && self.undestroyed.contains(id) => {}
            Err(error) => return Err(KeeperError::Move(error)),
        }
        let state = match to {
            RetireTo::Compromised => KekState::Compromised,
            RetireTo::Destroyed => {
                self.undestroyed.insert(*id);
                self.keks.remove(id);
                self.wraps.remove(id);
                self.publish();
                self.destroy_files(id)?;
                self.undestroyed.remove(id);
                KekState::Destroyed
            }
        };
        self.publish();
        emit(&Event::KeyRetired { kek: id, state: state.label() });
        Ok(self.table())
    }

    /// Makes sure that at least half a block lies ahead of the counter.
    fn reserve(&mut self) -> bool {
        let used = self.keyring.uses().unwrap_or_default();
        let reserved = self.state.ring.active().uses_reserved;
        if reserved >= used + RESERVED_BLOCK_USES || reserved >= uses::hard_limit(self.state.ring.active().shared) {
            return true;
        }
        match self.commit(self.state.ring.with_reservation(reserved + RESERVED_BLOCK_USES)) {
            Ok(()) => {
                self.keyring.extend(self.state.ring.active().uses_reserved);
                true
            }
            Err(error) => {
                trouble("reserve uses of the local KEK", &error);
                false
            }
        }
    }

    /// Writes the state, and takes it over only when it is safe.
    fn commit(&mut self, ring: Ring) -> Result<(), KeeperError> {
        self.commit_state(State { ring, ..self.state.clone() })
    }

    fn commit_state(&mut self, next: State) -> Result<(), KeeperError> {
        let state = State { generation: self.state.generation + 1, written: (self.settings.now)(), ..next };
        let mac_key = Key::copy_of(self.mac_key.expose()).ok_or(KeeperError::Locked)?;
        let bytes = state.encode(&self.settings.cluster, &self.root_id, &mac_key);
        // A generation that does not know that a key_id was left would report it once more.
        let same_roots = state.roots.reported == self.state.roots.reported;
        let destroyed = |ring: &Ring| ring.entries().filter(|(_, kek)| *kek == KekState::Destroyed).count();
        // A generation that does not know of an order to destroy would bring back a file that a power cut has left.
        let written = match destroyed(&state.ring) == destroyed(&self.state.ring) && same_roots {
            true => self.dir.replace(open::STATE, Kind::State, &bytes),
            false => self.dir.replace_both(open::STATE, Kind::State, &bytes),
        };
        written.map_err(KeeperError::Store)?;
        self.state = state;
        Ok(())
    }

    /// A power cut between record and file leaves the file: the record counts.
    fn finish_destruction(&self) -> Result<(), KeeperError> {
        for (entry, _) in self.state.ring.entries().filter(|(_, state)| *state == KekState::Destroyed) {
            self.destroy_files(&entry.id)?;
        }
        Ok(())
    }

    /// The sealed copy, and the copies by providers.
    fn destroy_files(&self, id: &KekId) -> Result<(), KeeperError> {
        for file in [kek_file::file_name(id), wraps_file::file_name(id)] {
            if self.dir.exists(&file).map_err(KeeperError::Store)? {
                self.dir.destroy(&file).map_err(KeeperError::Store)?;
            }
        }
        Ok(())
    }

    fn take_in(&mut self, id: KekId, key: Key) -> Result<(), KeeperError> {
        let key = LockedKey::new(key).map_err(KeeperError::Memory)?;
        if key.protection() == Protection::Unlocked {
            emit(&Event::MemoryUnlocked);
        }
        let entry = self.state.ring.entries().find(|(entry, _)| entry.id == id).map(|(entry, _)| entry);
        let (used, shared) = entry.map_or((0, false), |entry| (entry.uses_reserved, entry.shared));
        let counter = UseCounter::new(used, used, uses::hard_limit(shared));
        self.keks.insert(id, Arc::new(LiveKek::new(id, key, counter)));
        Ok(())
    }

    fn publish(&self) {
        let entry = self.state.ring.active();
        // Opening fails without the active KEK, and every change takes the new one in before it is committed.
        if let Some(kek) = self.keks.get(&entry.id) {
            kek.uses.limit_to(uses::hard_limit(entry.shared));
            kek.uses.extend(entry.uses_reserved);
        }
        let destroyed = self.state.ring.entries().filter(|(_, state)| *state == KekState::Destroyed);
        let destroyed = destroyed.map(|(entry, _)| entry.id).collect();
        self.keyring.publish(Snapshot { active: self.make_active(), by_id: self.keks.clone(), destroyed });
    }
}

fn trouble(what: &'static str, error: &KeeperError) {
    emit(&Event::StateTroubled { what, error: &Chain(error).to_string(), hint: error.hint() });
}
