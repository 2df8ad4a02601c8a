//! Every file of the state directory, in one table. Sweeping, recovery, the daily check and docs/formats.md go by it.

use super::{bundle, evidence, kek_file, member, recovery, wraps_file};
use crate::seal::host_secret::HostSecret;
use crate::seal::{credential, root};
use crate::store::{Disk, Kind, StateDir, StoreError};

/// Folders of one root.
pub(super) const FOLDERS: [&str; 4] = ["node", kek_file::DIR, credential::DIR, member::DIR];

/// The file that names the folder that counts.
pub const CURRENT: &str = "current";
/// In a folder that is not finished.
pub(super) const HALF_MADE: &str = "half-made";
/// In a folder that a recovery has replaced and kept.
pub(super) const KEPT: &str = "kept";
/// The newest word on all keys.
pub(super) const STATE: &str = "state";
/// Left by release 0.1 while `init` had not finished.
pub(super) const INIT_MARKER: &str = "init.pending";
/// Left by release 0.1 while `recover` had not finished.
pub(super) const RECOVER_MARKER: &str = "recover.pending";

/// Where a file lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the folder of a root.
    Root,
    /// In the state directory itself.
    Top,
}

/// What its two generations hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generations {
    /// The newest content and the one before. A change of keys writes both alike.
    Alternate,
    /// The same.
    Both,
    /// There is one alone.
    One,
}

/// One file, or all files of one ending.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name below its place; with `*` for whatever stands before an ending.
    pub name: &'static str,
    /// `None`: no container of ours.
    pub kind: Option<Kind>,
    /// See [`Place`].
    pub place: Place,
    /// See [`Generations`].
    pub generations: Generations,
    /// What it holds must not be read by anybody else.
    pub is_secret: bool,
    /// The daily check reads both generations and repairs what is damaged.
    pub is_checked: bool,
}

const fn row(name: &'static str, kind: Kind, place: Place, generations: Generations) -> Row {
    Row { name, kind: Some(kind), place, generations, is_secret: false, is_checked: true }
}

/// The table.
pub const FILES: &[Row] = &[
    row(CURRENT, Kind::Current, Place::Top, Generations::Both),
    row(recovery::FILE, Kind::Recovery, Place::Top, Generations::Both),
    Row { is_checked: false, ..row("recovery-*.age", Kind::Recovery, Place::Top, Generations::One) },
    Row { is_checked: false, ..row(INIT_MARKER, Kind::InitMarker, Place::Top, Generations::One) },
    Row { is_checked: false, ..row(RECOVER_MARKER, Kind::InitMarker, Place::Top, Generations::Both) },
    Row {
        name: "lock",
        kind: None,
        place: Place::Top,
        generations: Generations::One,
        is_secret: false,
        is_checked: false,
    },
    Row { is_checked: false, ..row(HALF_MADE, Kind::InitMarker, Place::Root, Generations::One) },
    Row { is_checked: false, ..row(KEPT, Kind::InitMarker, Place::Root, Generations::One) },
    Row { is_secret: true, ..row(HostSecret::FILE, Kind::HostSecret, Place::Root, Generations::Both) },
    row(root::FILE, Kind::NodeRoot, Place::Root, Generations::Both),
    row(STATE, Kind::State, Place::Root, Generations::Alternate),
    row("keyring/*.kek", Kind::LocalKek, Place::Root, Generations::Both),
    row("keyring/*.wraps", Kind::Wraps, Place::Root, Generations::Both),
    row("credentials/*.cred", Kind::Credential, Place::Root, Generations::Both),
    row("members/*.member", Kind::Member, Place::Root, Generations::Both),
    // A scan makes it again.
    Row { is_checked: false, ..row(evidence::FILE, Kind::Evidence, Place::Root, Generations::Both) },
    Row {
        is_secret: true,
        is_checked: false,
        ..row(bundle::REQUEST_FILE, Kind::BundleRequest, Place::Root, Generations::Both)
    },
];

/// The files of a root that are there, by the table, without their generations.
pub(super) fn of_root<D: Disk>(dir: &StateDir<D>) -> Result<Vec<String>, StoreError> {
    let mut found = Vec::new();
    for row in FILES.iter().filter(|row| row.place == Place::Root) {
        found.extend(matching(dir, row)?);
    }
    Ok(found)
}

/// The names of a row that are there.
pub(super) fn matching<D: Disk>(dir: &StateDir<D>, row: &Row) -> Result<Vec<String>, StoreError> {
    let Some((before, suffix)) = row.name.split_once('*') else {
        return Ok(if dir.exists(row.name)? { vec![row.name.to_owned()] } else { Vec::new() });
    };
    let (folder, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let stems = match dir.list(folder, suffix) {
        Ok(stems) => stems,
        Err(error) if error.is_missing() => Vec::new(),
        Err(error) => return Err(error),
    };
    let full =
        |stem: String| if folder.is_empty() { format!("{stem}{suffix}") } else { format!("{folder}/{stem}{suffix}") };
    Ok(stems.into_iter().filter(|stem| stem.starts_with(prefix)).map(full).collect())
}

const _: () = {
    // The endings of the table are those of the modules that write the files.
    assert!(kek_file::SUFFIX.len() == 4 && wraps_file::SUFFIX.len() == 6 && credential::SUFFIX.len() == 5);
    assert!(member::SUFFIX.len() == 7);
};
