//! Founding the keyring of a node: `init` makes the first KEK, `recover` takes the KEKs of a recovery file.
//!
//! Both write a marker first and remove it last. While it is there nothing can have been encrypted by what was made beside it, and
//! founding starts again. Neither ever overwrites keys: `init` refuses where there are some, and `recover` moves them into a folder.

use super::epoch::Roots;
use super::error::KeeperError;
use super::export::Export;
use super::kek_file::KekLabel;
use super::open::{self, Trust, create_kek, save_kek};
use super::recovery::{self, Recipient};
use super::ring::Ring;
use super::state_file::State;
use super::{bundle, guard, kek_file};
use crate::audit::{Event, emit};
use crate::seal::client::SealerClient;
use crate::seal::credential;
use crate::seal::host_secret::HostSecret;
use crate::seal::root::{self, NodeRoot};
use crate::store::{Disk, Kind, LoadError, StateDir};
use crate::types::clock::UnixSeconds;
use crate::types::wire::WireError;
use crate::types::{ClusterId, KekId, Key, SealTo};

/// Present while `init` has not finished.
pub(super) const INIT_MARKER: &str = "init.pending";
/// Present while `recover` has not finished; names the folder with what was there before.
pub(super) const RECOVER_MARKER: &str = "recover.pending";

/// Inside of the state directory.
pub(super) const FOLDERS: [&str; 2] = ["node", kek_file::DIR];

/// What both need to know.
pub struct Founding<'a> {
    /// Goes into every AAD.
    pub cluster: &'a ClusterId,
    /// Who seals the node root.
    pub sealer: &'a SealerClient,
    /// By which device.
    pub to: SealTo,
    /// NV index of the counter that guards the state, if the operator wants one.
    pub guard: Option<u32>,
    /// Whom the recovery file is encrypted to; empty if the operator refused one.
    pub recipients: &'a [Recipient],
}

/// Which KEK encrypts after a recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// A new one: the file may be older than the last rotation, and a key_id that was left must not come back.
    NewKek,
    /// The one that the file calls active: for a node of a cluster whose other nodes have it too.
    ActiveKek,
}

/// What a recovery gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The KEK that encrypts now.
    pub kek: KekId,
    /// How many KEKs came back.
    pub keks: usize,
    /// KEKs that the file lists without a key.
    pub lacking: Vec<KekId>,
    /// Folder inside of the state directory with what was there before.
    pub kept_in: Option<String>,
}

/// Sets a node up: node root, first KEK, state. Refuses where any of it exists, unless an earlier init did not finish.
pub fn init<D: Disk>(dir: &StateDir<D>, founding: &Founding<'_>, now: UnixSeconds) -> Result<KekId, KeeperError> {
    let store = KeeperError::Store;
    make_folders(dir)?;
    if dir.exists(RECOVER_MARKER).map_err(store)? {
        return Err(KeeperError::RecoveryPending);
    }
    if has_keys(dir)? && !dir.exists(INIT_MARKER).map_err(store)? {
        return Err(KeeperError::AlreadySetUp);
    }
    dir.replace(INIT_MARKER, Kind::InitMarker, b"").map_err(store)?;
    remove_half_made(dir)?;
    let root = NodeRoot::create(dir, founding.sealer, founding.to).map_err(KeeperError::Root)?;
    let (entry, key) = create_kek(dir, founding.cluster, &root, now)?;
    let kek = entry.id;
    write_and_prove(dir, founding, &root, Ring::new(entry, now), vec![(kek, key)], now)?;
    dir.destroy(INIT_MARKER).map_err(store)?;
    emit(&Event::KeyCreated { kek: &kek });
    Ok(kek)
}

/// Sets a node up with the KEKs of a recovery file, under a new node root. Refuses while the keys that are here open.
pub fn recover<D: Disk>(
    dir: &StateDir<D>,
    founding: &Founding<'_>,
    export: Export,
    resume: Resume,
    now: UnixSeconds,
) -> Result<Recovered, KeeperError> {
    if export.cluster != *founding.cluster {
        return Err(KeeperError::OtherCluster(export.cluster.to_string()));
    }
    let kept_in = make_way(dir, founding, now)?;
    let root = NodeRoot::create(dir, founding.sealer, founding.to).map_err(KeeperError::Root)?;
    let lacking = export.lacking();
    let Export { ring, mut keys, .. } = export;
    for (id, key) in &keys {
        save_kek(dir, founding.cluster, &root, &label(&ring, id)?, key)?;
    }
    let keks = keys.len();
    let ring = match resume {
        Resume::ActiveKek => match lacking.contains(&ring.active().id) {
            true => return Err(KeeperError::NotOpened(ring.active().id)),
            false => ring,
        },
        Resume::NewKek => {
            let (entry, key) = create_kek(dir, founding.cluster, &root, now)?;
            let id = entry.id;
            keys.push((id, key));
            let ring = ring.without_pending(now).with_pending(entry).map_err(KeeperError::Move)?;
            ring.activate(&id, now).map_err(KeeperError::Move)?
        }
    };
    // KEKs without a key are kept in the record: their key_ids never come back.
    let kek = ring.active().id;
    write_and_prove(dir, founding, &root, ring, keys, now)?;
    dir.destroy(RECOVER_MARKER).map_err(KeeperError::Store)?;
    emit(&Event::KeysRecovered { keys: keks, kek: &kek });
    Ok(Recovered { kek, keks, lacking, kept_in })
}

fn label(ring: &Ring, id: &KekId) -> Result<KekLabel, KeeperError> {
    let entry = ring.entries().find(|(entry, _)| entry.id == *id).map(|(entry, _)| entry);
    entry.map(|entry| KekLabel { id: entry.id, created: entry.created }).ok_or(KeeperError::NotOpened(*id))
}

/// Recovery file, counter, state; then the proof, by the way that every start takes: device, host secret, files.
fn write_and_prove<D: Disk>(
    dir: &StateDir<D>,
    founding: &Founding<'_>,
    root: &NodeRoot,
    ring: Ring,
    keys: Vec<(KekId, Key)>,
    now: UnixSeconds,
) -> Result<(), KeeperError> {
    let cluster = founding.cluster;
    if !founding.recipients.is_empty() {
        let export = Export { cluster: cluster.clone(), written: now, ring: ring.clone(), keys };
        let file = recovery::encrypt(founding.recipients, &export).map_err(KeeperError::Recovery)?;
        dir.replace_both(recovery::FILE, Kind::Recovery, &file).map_err(KeeperError::Store)?;
    }
    let counter_auth = root.counter_auth(cluster);
    let guard = founding.guard.map(|index| guard::make(founding.sealer, index, &counter_auth)).transpose()?;
    let state = State {
        generation: 1,
        written: now,
        guard,
        recipients: founding.recipients.to_vec(),
        roots: Roots::default(),
        ring,
    };
    let bytes = state.encode(cluster, &root.id(), &root.state_mac_key(cluster));
    // Both: one that was interrupted may have left a state of another root.
    dir.replace_both(open::STATE, Kind::State, &bytes).map_err(KeeperError::Store)?;
    open::open(dir, cluster, founding.sealer, Trust::Guarded, now).map(|_| ())
}

/// Makes sure that nothing of ours is in the way, and that whatever was is kept. Gives the folder that it is kept in.
fn make_way<D: Disk>(
    dir: &StateDir<D>,
    founding: &Founding<'_>,
    now: UnixSeconds,
) -> Result<Option<String>, KeeperError> {
    let store = KeeperError::Store;
    make_folders(dir)?;
    let marked = read_marker(dir)?;
    let marker = match marked {
        Some(marker) => marker,
        None if !has_keys(dir)? => Marker { folder: String::new(), moved: true },
        None if open::open(dir, founding.cluster, founding.sealer, Trust::Accepted, now).is_ok() => {
            return Err(KeeperError::KeysOpen);
        }
        None => Marker { folder: format!("before-recovery-{now}"), moved: false },
    };
    if marker.moved {
        marker.save(dir)?;
        remove_half_made(dir)?;
    } else {
        marker.save(dir)?;
        for folder in ["", "/node", "/keyring", "/credentials"] {
            dir.make_dir(&format!("{}{folder}", marker.folder)).map_err(store)?;
        }
        for name in names(dir)? {
            dir.move_into(&marker.folder, &name).map_err(store)?;
        }
        Marker { folder: marker.folder.clone(), moved: true }.save(dir)?;
    }
    Ok(Some(marker.folder).filter(|folder| !folder.is_empty()))
}

/// How far a recovery has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// Where the old files go; empty if there were none.
    pub folder: String,
    /// They are there. What lies at their old places is half made.
    pub moved: bool,
}

impl Marker {
    fn save<D: Disk>(&self, dir: &StateDir<D>) -> Result<(), KeeperError> {
        dir.replace_both(RECOVER_MARKER, Kind::InitMarker, &self.encode()).map_err(KeeperError::Store)
    }

    /// The payload of the file.
    pub fn encode(&self) -> Vec<u8> {
        [&[u8::from(self.moved)], self.folder.as_bytes()].concat()
    }

    /// The mirror of [`Marker::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let (moved, folder) = bytes.split_first().ok_or(WireError::Short("moved"))?;
        let moved = match moved {
            0 => false,
            1 => true,
            _ => return Err(WireError::BadValue("moved")),
        };
        // One name: files are moved there, and never out of the state directory.
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
        match std::str::from_utf8(folder) {
            Ok(name) if folder.iter().all(is_plain) => Ok(Self { folder: name.to_owned(), moved }),
            _ => Err(WireError::BadValue("folder")),
        }
    }
}

fn read_marker<D: Disk>(dir: &StateDir<D>) -> Result<Option<Marker>, KeeperError> {
    if !dir.exists(RECOVER_MARKER).map_err(KeeperError::Store)? {
        return Ok(None);
    }
    match dir.load(RECOVER_MARKER, Kind::InitMarker, |_, bytes| Marker::decode(bytes)) {
        Ok(loaded) => Ok(Some(loaded.value)),
        Err(LoadError::Store(source)) => Err(KeeperError::Store(source)),
        Err(LoadError::Content(_)) => Err(KeeperError::RecoveryPending),
    }
}

/// Everything that belongs to one node root, without what is moved aside already.
fn names<D: Disk>(dir: &StateDir<D>) -> Result<Vec<String>, KeeperError> {
    let keks = dir.list(kek_file::DIR, kek_file::SUFFIX).map_err(KeeperError::Store)?;
    let mut names: Vec<String> =
        [HostSecret::FILE, root::FILE, open::STATE, recovery::FILE, bundle::REQUEST_FILE, INIT_MARKER]
            .map(str::to_owned)
            .to_vec();
    names.extend(keks.iter().map(|kek| format!("{}/{kek}{}", kek_file::DIR, kek_file::SUFFIX)));
    // What is sealed under the old root is of no use under another one.
    match dir.list(credential::DIR, credential::SUFFIX) {
        Ok(sealed) => {
            names.extend(sealed.iter().map(|name| format!("{}/{name}{}", credential::DIR, credential::SUFFIX)));
        }
        Err(error) if error.is_missing() => {}
        Err(error) => return Err(KeeperError::Store(error)),
    }
    Ok(names)
}

fn remove_half_made<D: Disk>(dir: &StateDir<D>) -> Result<(), KeeperError> {
    for file in dir.list(kek_file::DIR, kek_file::SUFFIX).map_err(KeeperError::Store)? {
        dir.destroy(&format!("{}/{file}{}", kek_file::DIR, kek_file::SUFFIX)).map_err(KeeperError::Store)?;
    }
    Ok(())
}

fn has_keys<D: Disk>(dir: &StateDir<D>) -> Result<bool, KeeperError> {
    let store = KeeperError::Store;
    let files = dir.list(kek_file::DIR, kek_file::SUFFIX).map_err(store)?;
    Ok(dir.exists(open::STATE).map_err(store)? || NodeRoot::exists(dir).map_err(store)? || !files.is_empty())
}

fn make_folders<D: Disk>(dir: &StateDir<D>) -> Result<(), KeeperError> {
    FOLDERS.into_iter().try_for_each(|folder| dir.make_dir(folder).map_err(KeeperError::Store))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_read_as_it_was_written_or_not_at_all() {
        for (folder, moved) in [("before-recovery-1700000000", false), ("before-recovery-1700000000", true), ("", true)]
        {
            let marker = Marker { folder: folder.to_owned(), moved };
            assert_eq!(Marker::decode(&marker.encode()), Ok(marker));
        }
        for bytes in [&b""[..], b"\x02x", b"\x01../elsewhere", b"\x01/etc", b"\x01a/b", b"\x01.", b"\x01\xff"] {
            assert!(Marker::decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
