//! The sealed copies of local KEKs on disk: the one way in which a KEK gets there, and back.

use super::error::KeeperError;
use super::kek_file::{self, KekFileError, KekLabel};
use super::ring::{Entry, Ring};
use crate::audit::{Event, emit};
use crate::seal::root::NodeRoot;
use crate::store::{Disk, Generation, Kind, LoadError, StateDir};
use crate::types::clock::UnixSeconds;
use crate::types::{ClusterId, KekId, Key, RootId, random};

/// Draws a KEK, which is nowhere yet.
pub(super) fn draw_kek(now: UnixSeconds) -> Result<(Entry, Key), KeeperError> {
    let id = KekId::from_bytes(random::array().map_err(KeeperError::Random)?);
    let key = Key::random().map_err(KeeperError::Random)?;
    Ok((Entry { id, created: now, uses_reserved: 0, shared: false }, key))
}

/// A KEK that another node has made.
pub(super) const fn entry_of_another(label: &KekLabel) -> Entry {
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
pub(super) fn load_kek<D: Disk>(
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
pub(super) fn unknown_keks<D: Disk>(dir: &StateDir<D>, ring: &Ring) -> Result<Vec<KekId>, KeeperError> {
    let names = dir.list(kek_file::DIR, kek_file::SUFFIX).map_err(KeeperError::Store)?;
    let known: Vec<KekId> = ring.entries().map(|(entry, _)| entry.id).collect();
    Ok(names.iter().filter_map(|name| name.parse().ok()).filter(|id| !known.contains(id)).collect())
}
