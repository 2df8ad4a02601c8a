//! The state on disk, and its only writer.
//!
//! There are two ways to write it. [`Books::reserve`] says that more encryptions may be made: one generation, so that what a bad
//! sector takes away is one reservation. [`Books::change`] says anything else: both generations, always.
//!
//! A change is data ([`Change`]), and its order is one: files of new keys, the recovery file if it gains a key, `state`, memory,
//! the recovery file if it loses one. A change that fails before `state` leaves no file that no state names.

mod lacking;

use sha2::{Digest, Sha256};

use crate::audit::{Event, emit};
use crate::keyring::error::KeeperError;
use crate::keyring::export::Export;
use crate::keyring::files::STATE;
use crate::keyring::home::Home;
use crate::keyring::kek_file::{self, KekLabel};
use crate::keyring::kek_store::save_kek;
use crate::keyring::maker::MakerKey;
use crate::keyring::recovery;
use crate::keyring::ring::Ring;
use crate::keyring::state_file::State;
use crate::sandbox::memory::LockedKey;
use crate::seal::root::NodeRoot;
use crate::store::{Disk, Examined, Kind, LoadError, StateDir, StoreError, room_for};
use crate::types::clock::UnixSeconds;
use crate::types::{ClusterId, KekId, Key, RootId};

/// A KEK that is to get a sealed copy.
pub(super) struct NewKek<'k> {
    pub(super) label: KekLabel,
    pub(super) key: &'k Key,
}

/// Something that the state is to say from now on.
pub(super) struct Change<'k> {
    /// What it says then.
    pub(super) next: State,
    /// KEKs without a sealed copy, and the root that seals them.
    pub(super) new: Option<(&'k NodeRoot, Vec<NewKek<'k>>)>,
    /// The guard counts it: another state with the old keys would be an old copy.
    pub(super) is_of_keys: bool,
}

impl Change<'_> {
    /// Of keys, without a new one.
    pub(super) fn of_keys(next: State) -> Self {
        Self { next, new: None, is_of_keys: true }
    }

    /// Of what else the state remembers.
    pub(super) fn of_memory(next: State) -> Self {
        Self { next, new: None, is_of_keys: false }
    }
}

/// What the books are kept under.
pub(super) struct Sealing {
    pub(super) root_id: RootId,
    pub(super) mac_key: LockedKey,
    pub(super) recovery_seed: LockedKey,
}

impl Sealing {
    /// Of an open root.
    pub(super) fn of(root: &NodeRoot, cluster: &ClusterId) -> Result<Self, KeeperError> {
        let locked = |key| LockedKey::new(key).map_err(KeeperError::Memory);
        Ok(Self {
            root_id: root.id(),
            mac_key: locked(root.state_mac_key(cluster))?,
            recovery_seed: locked(root.recovery_signing_seed(cluster))?,
        })
    }
}

/// See the module.
pub(super) struct Books<D: Disk> {
    pub(super) home: Home<D>,
    cluster: ClusterId,
    root_id: RootId,
    mac_key: LockedKey,
    /// Signs the recovery file.
    recovery_seed: LockedKey,
    state: State,
    /// The counter has to count before the next change asks it to count once more.
    pub(super) is_count_owed: bool,
    /// The recovery file that the state speaks of has not been written.
    pub(super) is_recovery_owed: bool,
    /// The state is in one generation, and the other one is older.
    pub(super) is_state_owed: bool,
    now: fn() -> UnixSeconds,
}

impl<D: Disk + Clone> Books<D> {
    pub(super) fn new(
        home: Home<D>,
        cluster: ClusterId,
        Sealing { root_id, mac_key, recovery_seed }: Sealing,
        state: State,
        now: fn() -> UnixSeconds,
    ) -> Self {
        Self {
            home,
            cluster,
            root_id,
            mac_key,
            recovery_seed,
            state,
            is_count_owed: false,
            is_recovery_owed: false,
            is_state_owed: false,
            now,
        }
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    pub(super) fn ring(&self) -> &Ring {
        &self.state.ring
    }

    pub(super) fn root_id(&self) -> RootId {
        self.root_id
    }

    /// Signs recovery files.
    pub(super) fn maker(&self) -> Result<MakerKey, KeeperError> {
        Ok(MakerKey::new(&self.recovery_seed.copy()))
    }

    pub(super) fn mac_key(&self) -> &LockedKey {
        &self.mac_key
    }

    /// Takes note of what needs no writing: it is seen again after a restart.
    pub(super) fn remember(&mut self, roots: crate::keyring::epoch::ProviderMemory) {
        self.state.roots = roots;
    }

    /// The next write has it.
    pub(super) fn remember_marks(&mut self, marks: crate::keyring::marks::Marks) {
        self.state.marks = marks;
    }

    /// More encryptions may be made, or it is known how many were. One generation.
    pub(super) fn reserve(&mut self, ring: Ring) -> Result<(), KeeperError> {
        self.check_home()?;
        let next = State { ring, ..self.state.clone() };
        let bytes = self.encode(&next)?;
        let written = self.with_room(|home| home.root.replace(STATE, Kind::State, &bytes));
        written.map_err(KeeperError::Store)?;
        self.state = self.stamped(next);
        Ok(())
    }

    /// See the module. `exports` gives the keyring as it is in a state, for the recovery file.
    pub(super) fn change(&mut self, change: Change<'_>, exports: impl Fn(&State) -> Export) -> Result<(), KeeperError> {
        let Change { mut next, new, is_of_keys } = change;
        self.check_home()?;
        if self.home.is_flat() {
            self.home.carry_over(&self.root_id).map_err(KeeperError::Store)?;
        }
        let file = self.recovery_file(&mut next, is_of_keys, exports)?;
        if is_of_keys
            && !self.is_count_owed
            && let Some(guard) = &mut next.guard
        {
            guard.expected += 1;
        }
        let adds = new.is_some();
        let saved = self.save_new(new)?;
        let loses = self.state.ring.usable().any(|(entry, _)| !next.ring.usable().any(|(kept, _)| kept.id == entry.id));
        let written = match &file {
            File::Write(bytes) if !loses => self.write_recovery_file(bytes),
            File::Remove | File::Stays | File::Write(_) => Ok(()),
        };
        let first = written.and_then(|()| self.commit(&next));
        // A call that failed may have done its work all the same, and a power cut may undo it. What only adds may count on it: nobody
        // is shown anything that a start without it would take back.
        let shows_same =
            next.ring.active().id == self.state.ring.active().id && next.roots.reported == self.state.roots.reported;
        let is_made = first.is_ok() || (adds && shows_same && !loses && self.is_newest(self.state.generation + 1));
        self.is_state_owed = match first.is_ok() {
            // In one generation it is safe: the other one is owed.
            true => self.commit(&next).is_err(),
            false => true,
        };
        if let (false, Err(error)) = (is_made, first) {
            self.undo(&saved);
            // It may have a key that no state names.
            self.is_recovery_owed |= matches!(file, File::Write(_)) && !loses;
            return Err(error);
        }
        // Changes while the TPM is away share one count.
        self.is_count_owed |= is_of_keys && next.guard.is_some();
        self.state = self.stamped(next);
        let written = match &file {
            File::Write(bytes) if loses => self.write_recovery_file(bytes),
            File::Remove => self.home.top.destroy(recovery::FILE).map_err(KeeperError::Store),
            File::Stays | File::Write(_) => Ok(()),
        };
        match written {
            Ok(()) => self.is_recovery_owed &= !matches!(file, File::Write(_)),
            Err(error) => {
                self.is_recovery_owed = true;
                super::trouble(RECOVERY_FILE, &error);
            }
        }
        Ok(())
    }

    /// Writes the recovery file anew if it is not the one that the state speaks of.
    pub(super) fn settle_recovery_file(&mut self, exports: impl Fn(&State) -> Export) -> Result<(), KeeperError> {
        if self.state.recipients.is_empty() || self.holds_recovery_file()? {
            self.is_recovery_owed = false;
            return Ok(());
        }
        self.is_recovery_owed = true;
        let next = self.state.clone();
        self.change(Change { next, new: None, is_of_keys: false }, exports)?;
        self.is_recovery_owed = false;
        Ok(())
    }

    /// Whether both generations of the recovery file are what the state speaks of. Whatever lies there for a state of release 0.1 is.
    pub(super) fn holds_recovery_file(&self) -> Result<bool, KeeperError> {
        let is_wanted = |_, bytes: &[u8]| match self.state.recovery {
            Some(wanted) if digest(bytes) != wanted => Err(()),
            Some(_) | None => Ok(()),
        };
        let Examined { newest, previous } = self.home.top.examine(recovery::FILE, Kind::Recovery, is_wanted);
        let mut holds = true;
        for read in [newest, previous] {
            match read {
                Ok(()) => {}
                Err(error) if error.is_lost() => holds = false,
                Err(LoadError::Store(error)) => return Err(KeeperError::Store(error)),
                Err(LoadError::Content(())) => holds = false,
            }
        }
        Ok(holds)
    }

    /// Where to write what belongs to the root and is not of the state.
    pub(super) fn folder(&mut self) -> Result<&StateDir<D>, KeeperError> {
        self.check_home()?;
        Ok(&self.home.root)
    }

    /// Whatever is written where nothing may count any more would be lost with the next start.
    fn check_home(&mut self) -> Result<(), KeeperError> {
        if self.home.is_unsure {
            self.home.resolve(&self.root_id);
        }
        if self.home.is_unsure { Err(KeeperError::Unsure) } else { Ok(()) }
    }

    fn recovery_file(
        &self,
        next: &mut State,
        is_of_keys: bool,
        exports: impl Fn(&State) -> Export,
    ) -> Result<File, KeeperError> {
        if next.awaits_bundle {
            return Ok(File::Stays);
        }
        if next.recipients.is_empty() {
            next.recovery = None;
            // A file that no order of the operator has ended is not ours to remove.
            return Ok(if self.state.recipients.is_empty() { File::Stays } else { File::Remove });
        }
        if !is_of_keys && !self.is_recovery_owed && next.recovery == self.state.recovery && next.recovery.is_some() {
            return Ok(File::Stays);
        }
        let export = exports(next);
        // One that does not open here may be destroyed while another one does not, too.
        let before = self.state.ring.usable().map(|(entry, _)| entry.id);
        let destroyed: Vec<KekId> = before.filter(|id| next.ring.is_destroyed(id)).collect();
        let opens = !destroyed.is_empty() && {
            let lacked = exports(&self.state).lacking();
            destroyed.iter().any(|id| !lacked.contains(id))
        };
        self.keep_what_is_lacking(&export, next, &destroyed, opens)?;
        let file = recovery::encrypt(&next.recipients, &export, &self.maker()?).map_err(KeeperError::Recovery)?;
        next.recovery = Some(digest(&file));
        Ok(File::Write(file))
    }

    fn save_new(&self, new: Option<(&NodeRoot, Vec<NewKek<'_>>)>) -> Result<Vec<KekId>, KeeperError> {
        let Some((root, keks)) = new else { return Ok(Vec::new()) };
        let mut saved = Vec::new();
        for NewKek { label, key } in &keks {
            // One that lies here already is not ours to remove again.
            let is_new = !self.state.ring.entries().any(|(entry, _)| entry.id == label.id);
            let written = save_kek(&self.home.root, &self.cluster, root, label, key);
            saved.extend(is_new.then_some(label.id));
            if let Err(error) = written {
                self.undo(&saved);
                return Err(error);
            }
        }
        Ok(saved)
    }

    /// After a change that was not made: the disk as it was.
    fn undo(&self, saved: &[KekId]) {
        // In doubt what was made stays: something may name it.
        if !self.is_newest(self.state.generation) {
            return;
        }
        for id in saved {
            if let Err(error) = self.home.root.destroy(&kek_file::file_name(id)).map_err(KeeperError::Store) {
                super::trouble("remove a KEK that no state names", &error);
            }
        }
    }

    /// Whether the newest state on the disk is this one.
    fn is_newest(&self, generation: u64) -> bool {
        let mac_key = self.mac_key.copy();
        let read = |version, bytes: &[u8]| State::decode(version, bytes, &self.cluster, &self.root_id, &mac_key);
        self.home.root.load(STATE, Kind::State, read).is_ok_and(|loaded| loaded.value.generation == generation)
    }

    pub(super) fn write_recovery_file(&self, file: &[u8]) -> Result<(), KeeperError> {
        self.home.top.replace_both(recovery::FILE, Kind::Recovery, file).map_err(KeeperError::Store)
    }

    /// One generation.
    fn commit(&self, next: &State) -> Result<(), KeeperError> {
        let bytes = self.encode(next)?;
        self.home.root.replace(STATE, Kind::State, &bytes).map_err(KeeperError::Store)
    }

    /// On a disk that is full, tries once more with the room that was kept for this, and keeps what is left of it.
    fn with_room<T>(&self, write: impl Fn(&Home<D>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        match write(&self.home) {
            Err(error) if error.is_full() && self.home.top.release_spare() => {
                emit(&Event::StateDiskFull);
                let written = write(&self.home);
                if let Err(error) = self.keep_spare() {
                    super::trouble("reserve space for the next write to a full disk", &error);
                }
                written
            }
            other => other,
        }
    }

    /// Room for the next time that the disk is full: one state. A recovery file is for changes, and these can wait for an operator.
    pub(super) fn keep_spare(&self) -> Result<(), KeeperError> {
        let state = self.encode(&self.state)?;
        self.home.top.keep_spare(room_for(&[state.len()])).map(drop).map_err(KeeperError::Store)
    }

    fn encode(&self, next: &State) -> Result<Vec<u8>, KeeperError> {
        let mac_key = self.mac_key.copy();
        Ok(self.stamped(next.clone()).encode(&self.cluster, &self.root_id, &mac_key))
    }

    fn stamped(&self, next: State) -> State {
        State { generation: self.state.generation + 1, written: (self.now)(), ..next }
    }

    /// Everything lies under another root from now on.
    pub(super) fn move_to(&mut self, Sealing { root_id, mac_key, recovery_seed }: Sealing, state: State) {
        self.root_id = root_id;
        self.mac_key = mac_key;
        self.recovery_seed = recovery_seed;
        self.state = state;
        self.is_count_owed = false;
        self.is_recovery_owed = true;
        self.is_state_owed = false;
    }
}

/// What becomes of the recovery file.
enum File {
    Remove,
    Stays,
    Write(Vec<u8>),
}

const RECOVERY_FILE: &str = "write the recovery file";

pub(in crate::keyring) fn digest(payload: &[u8]) -> [u8; 32] {
    Sha256::digest(payload).into()
}
