//! From disk to memory: opening the keys of a node. And the one way in which a KEK gets onto the disk.

use super::epoch::Reported;
use super::error::KeeperError;
use super::guard::{self, Stand};
use super::kek_file::{self, KekFileError, KekLabel};
use super::ring::{Entry, KekState, Ring};
use super::state_file::State;
use super::uses::RESERVED_BLOCK_USES;
use crate::audit::{Event, emit};
use crate::seal::client::SealerClient;
use crate::seal::root::NodeRoot;
use crate::store::{Disk, Generation, Kind, LoadError, StateDir};
use crate::types::clock::UnixSeconds;
use crate::types::{Chain, ClusterId, KekId, Key, RootId, random};

pub(super) const STATE: &str = "state";

/// Encryptions that a state which was lost may have allowed a KEK that became active in it: one reservation.
const LOST_USES: u64 = RESERVED_BLOCK_USES;

/// What the keeper starts from.
pub(super) struct Opened {
    pub(super) state: State,
    pub(super) root: NodeRoot,
    pub(super) mac_key: Key,
    /// Every KEK that can decrypt, with its id.
    pub(super) keks: Vec<(KekId, Key)>,
    /// The newest state was damaged or is lost: what it said of the active KEK is unknown, so that a new one must be made.
    pub(super) fell_back: bool,
    /// The counter has to count once more.
    pub(super) owed: bool,
    /// Authorises it.
    pub(super) counter_auth: Key,
    /// Opens the credentials.
    pub(super) credential_key: Key,
}

/// What to make of a state that the guard calls old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// Refuse it.
    Guarded,
    /// Take it: the operator has said so, or only looks.
    Accepted,
}

/// Opens the node root by the device, then state and KEKs. Writes nothing.
pub(super) fn open<D: Disk>(
    dir: &StateDir<D>,
    cluster: &ClusterId,
    sealer: &SealerClient,
    trust: Trust,
    now: UnixSeconds,
) -> Result<Opened, KeeperError> {
    let (root, damaged) = NodeRoot::open(dir, sealer).map_err(KeeperError::Root)?;
    for file in damaged {
        emit(&Event::StateFellBack { file });
    }
    let mac_key = root.state_mac_key(cluster);
    let loaded = dir
        .load(STATE, Kind::State, |version, bytes| State::decode(version, bytes, cluster, &root.id(), &mac_key))
        .map_err(|error| match error {
            LoadError::Content(source) => KeeperError::State(source),
            LoadError::Store(source) => KeeperError::Store(source),
        })?;
    let mut fell_back = loaded.generation == Generation::Previous;
    if fell_back {
        emit(&Event::StateFellBack { file: STATE });
    }
    let mut state = loaded.value;
    let counter_auth = root.counter_auth(cluster);
    let mut owed = false;
    match (guard::check(&state, loaded.generation, sealer, &counter_auth), trust) {
        (Ok(Stand::Even), _) => {}
        (Ok(Stand::Owed), _) => {
            // The last stop came between write and count.
            if let Some(Err(source)) = state.guard.map(|guard| guard::pay(sealer, guard, &counter_auth)) {
                owed = true;
                report("let the TPM's counter follow the state", &KeeperError::Device(source));
            }
        }
        (Err(error), Trust::Guarded) => return Err(error),
        (Err(error), Trust::Accepted) => {
            report("compare the state with the TPM's counter", &error);
            state.guard = None;
            fell_back = true;
        }
    }
    if fell_back {
        state.ring = state.ring.with_pending_uses(LOST_USES).without_pending(now);
    }
    let wrapping_key = root.kek_wrapping_key(cluster);
    let mut keks = Vec::new();
    for (entry, kek_state) in state.ring.entries().filter(|(_, kek_state)| *kek_state != KekState::Destroyed) {
        match load_kek(dir, cluster, &root.id(), &wrapping_key, &entry.id) {
            Ok((_, key)) => keks.push((entry.id, key)),
            // Providers have wrapped it: a new one takes its place, and texts of this one bring their copies along.
            Err(error) if kek_state == KekState::Active && state.roots.reported != Reported::LocalKek => {
                report(OPEN_KEK, &error);
                fell_back = true;
            }
            Err(error) if kek_state == KekState::Active => return Err(error),
            // The others go on; what only this KEK opens is NOT_FOUND until its file is restored.
            Err(error) => report(OPEN_KEK, &error),
        }
    }
    for id in unknown_keks(dir, &state.ring)? {
        match load_kek(dir, cluster, &root.id(), &wrapping_key, &id) {
            Ok((label, key)) => {
                keks.push((label.id, key));
                let found = Entry { id: label.id, created: label.created, uses_reserved: LOST_USES, shared: false };
                state.ring = state.ring.with_found(found, now);
            }
            Err(error) => report(OPEN_KEK, &error),
        }
    }
    let credential_key = root.credential_key(cluster);
    Ok(Opened { state, root, mac_key, keks, fell_back, owed, counter_auth, credential_key })
}

/// Makes a KEK and answers only when its sealed copy was read back and opened.
pub(super) fn create_kek<D: Disk>(
    dir: &StateDir<D>,
    cluster: &ClusterId,
    root: &NodeRoot,
    now: UnixSeconds,
) -> Result<(Entry, Key), KeeperError> {
    let id = KekId::from_bytes(random::array().map_err(KeeperError::Random)?);
    let key = Key::random().map_err(KeeperError::Random)?;
    save_kek(dir, cluster, root, &KekLabel { id, created: now }, &key)?;
    Ok((Entry { id, created: now, uses_reserved: 0, shared: false }, key))
}

/// A KEK that another node has made.
pub(super) const fn foreign_entry(label: &KekLabel) -> Entry {
    Entry { id: label.id, created: label.created, uses_reserved: 0, shared: true }
}

/// Writes a KEK's sealed copy, reads it back, opens it and compares.
pub(super) fn save_kek<D: Disk>(
    dir: &StateDir<D>,
    cluster: &ClusterId,
    root: &NodeRoot,
    label: &KekLabel,
    key: &Key,
) -> Result<(), KeeperError> {
    let id = label.id;
    let wrapping_key = root.kek_wrapping_key(cluster);
    let nonce = random::array().map_err(KeeperError::Random)?;
    let bytes = kek_file::seal(key, label, cluster, &root.id(), &wrapping_key, nonce)
        .map_err(|source| KeeperError::KekFile { kek: id, source })?;
    dir.replace_both(&kek_file::file_name(&id), Kind::LocalKek, &bytes).map_err(KeeperError::Store)?;
    let (_, back) = load_kek(dir, cluster, &root.id(), &wrapping_key, &id)?;
    if back.expose() != key.expose() {
        return Err(KeeperError::KekFile { kek: id, source: KekFileError::Tag });
    }
    Ok(())
}

/// Reads one KEK from its file.
fn load_kek<D: Disk>(
    dir: &StateDir<D>,
    cluster: &ClusterId,
    root: &RootId,
    wrapping_key: &Key,
    id: &KekId,
) -> Result<(KekLabel, Key), KeeperError> {
    let accept = |_, bytes: &[u8]| {
        let (label, key) = kek_file::open(bytes, cluster, root, wrapping_key)?;
        if label.id == *id { Ok((label, key)) } else { Err(KekFileError::Tag) }
    };
    match dir.load(&kek_file::file_name(id), Kind::LocalKek, accept) {
        Ok(loaded) => {
            if loaded.generation == Generation::Previous {
                emit(&Event::StateFellBack { file: &kek_file::file_name(id) });
            }
            Ok(loaded.value)
        }
        Err(LoadError::Content(source)) => Err(KeeperError::KekFile { kek: *id, source }),
        Err(LoadError::Store(source)) => Err(KeeperError::KekMissing { kek: *id, source }),
    }
}

/// Files whose KEK the state does not list: a state older than they are was restored or fell back.
fn unknown_keks<D: Disk>(dir: &StateDir<D>, ring: &Ring) -> Result<Vec<KekId>, KeeperError> {
    let names = dir.list(kek_file::DIR, kek_file::SUFFIX).map_err(KeeperError::Store)?;
    let known: Vec<KekId> = ring.entries().map(|(entry, _)| entry.id).collect();
    Ok(names.iter().filter_map(|name| name.parse().ok()).filter(|id| !known.contains(id)).collect())
}

const OPEN_KEK: &str = "open a local KEK";

fn report(what: &'static str, error: &KeeperError) {
    emit(&Event::StateTroubled { what, error: &Chain(error).to_string(), hint: error.hint() });
}
