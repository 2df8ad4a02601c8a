//! Which recovery file `nodeseal recover` takes. None is taken silently that has less than another one that lies here.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::args::RecoverArgs;
use super::files::WrongKind;
use super::output::counted;
use crate::config::Config;
use crate::keyring::KeeperError;
use crate::keyring::exchanged::FileKind;
use crate::keyring::export::Export;
use crate::keyring::maker::Maker;
use crate::keyring::recovery::{self, FILE_MAX_BYTES, Identity, IdentityError, RecoveryError};
use crate::types::{Class, Explained, KekId, Secret};

#[derive(Debug, thiserror::Error)]
pub(super) enum RecoverError {
    #[error("the identity cannot be used")]
    Identity(#[source] IdentityError),
    #[error(transparent)]
    Keeper(KeeperError),
    #[error("{path} cannot be used", path = path.display())]
    Kind {
        path: PathBuf,
        #[source]
        source: WrongKind,
    },
    #[error("the recovery file was not made by the node with that fingerprint")]
    Maker,
    #[error("cannot read {path}", path = path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the recovery file {path} cannot be used", path = path.display())]
    Recovery {
        path: PathBuf,
        #[source]
        source: RecoveryError,
    },
    #[error("{path} lacks {lacking} that {newer} has", path = path.display(), newer = newer.display(), lacking = counted(*lacking, "KEK"))]
    Older {
        /// What was named.
        path: PathBuf,
        /// What lies in the state directory.
        newer: PathBuf,
        lacking: usize,
    },
    #[error("the recovery file is {UNSIGNED}: nothing in it says which node that was")]
    Unsigned,
}

impl Explained for RecoverError {
    fn class(&self) -> Class {
        match self {
            Self::Identity(_) | Self::Maker | Self::Older { .. } | Self::Unsigned => Class::Denied,
            Self::Keeper(error) => error.class(),
            Self::Kind { .. } => Class::Corrupt,
            Self::Read { source, .. } if is_denied(source) => Class::Denied,
            Self::Read { .. } => Class::NotFound,
            Self::Recovery { source, .. } => source.class(),
        }
    }

    fn hint(&self) -> &str {
        match self {
            Self::Identity(_) => {
                "give the printed recovery code, or the key file of age, on standard input or with --identity FILE"
            }
            Self::Keeper(error) => error.hint(),
            Self::Maker => {
                "compare `recover --verify`, which shows who made it, with `nodeseal status` on the expected node; if they differ, use another copy of recovery.age"
            }
            Self::Unsigned => {
                "use a copy from after the update of that node, or omit --made-by if no one else could write to the place of this copy"
            }
            Self::Older { .. } => {
                "omit --file: recovery.age of the state directory is newer; if you do not trust it, move it aside first"
            }
            Self::Kind { .. } => "name a copy of recovery.age with --file",
            Self::Read { source, .. } if is_denied(source) => "run it as root",
            Self::Read { .. } => "name files that can be read: --file for recovery.age, --identity for the key",
            Self::Recovery { source, .. } => source.hint(),
        }
    }
}

fn is_denied(source: &io::Error) -> bool {
    source.kind() == io::ErrorKind::PermissionDenied
}

/// A recovery file that opens.
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) export: Export,
    pub(super) maker: Option<Maker>,
}

/// The one that was named, or that of the state directory. Only if that is missing or damaged, and no proof is asked for, the newest of
/// the copies that lie here.
pub(super) fn find(config: &Config, args: &RecoverArgs, identity: &Identity) -> Result<Found, RecoverError> {
    let own = config.state_dir.join(recovery::FILE);
    if let Some(path) = &args.file {
        let found = open(path, identity)?;
        if !args.verify {
            check_newest(&found, &own, identity)?;
        }
        return Ok(found);
    }
    match open(&own, identity) {
        Err(error) if !args.verify && error.is_lost() => {
            let copies = other_copies(&config.state_dir);
            let opened = copies.iter().filter_map(|path| open(path, identity).ok());
            opened.max_by_key(|found| found.export.written).ok_or(error)
        }
        found => found,
    }
}

impl RecoverError {
    /// There is no such file any more, whoever asks.
    fn is_lost(&self) -> bool {
        match self {
            Self::Read { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Self::Recovery { source, .. } => source.class() == Class::Corrupt,
            Self::Kind { .. } => true,
            Self::Identity(_) | Self::Keeper(_) | Self::Maker | Self::Older { .. } | Self::Unsigned => false,
        }
    }
}

/// Before anybody is asked for an identity. A pipe has its bytes once, and is judged when it is read.
pub(super) fn refuse_other_kinds(config: &Config, args: &RecoverArgs) -> Result<(), RecoverError> {
    let path = args.file.clone().unwrap_or_else(|| config.state_dir.join(recovery::FILE));
    let wanted = FileKind::Recovery;
    let is_file = std::fs::metadata(&path).is_ok_and(|metadata| metadata.is_file());
    let found = is_file.then(|| read(&path).ok()).flatten().and_then(|file| FileKind::of(file.expose()));
    match found.filter(|found| *found != wanted && args.file.is_some()) {
        Some(found) => Err(RecoverError::Kind { path, source: WrongKind { found, wanted } }),
        None => Ok(()),
    }
}

pub(super) fn open(path: &Path, identity: &Identity) -> Result<Found, RecoverError> {
    let file = read(path)?;
    let wanted = FileKind::Recovery;
    if let Some(found) = FileKind::of(file.expose()).filter(|found| *found != wanted) {
        return Err(RecoverError::Kind { path: path.to_owned(), source: WrongKind { found, wanted } });
    }
    match recovery::decrypt(identity, file.expose()) {
        Ok((export, maker)) => Ok(Found { path: path.to_owned(), export, maker }),
        Err(source) => Err(RecoverError::Recovery { path: path.to_owned(), source }),
    }
}

/// What this node's own file has, the named one has too, unless it knows that it was destroyed.
fn check_newest(found: &Found, own: &Path, identity: &Identity) -> Result<(), RecoverError> {
    let Ok(here) = open(own, identity) else { return Ok(()) };
    let has = |id: &KekId| found.export.keys.iter().any(|(known, _)| known == id) || found.export.ring.is_destroyed(id);
    let lacking = here.export.keys.iter().filter(|(id, _)| !has(id)).count();
    match lacking {
        0 => Ok(()),
        lacking => Err(RecoverError::Older { path: found.path.clone(), newer: here.path, lacking }),
    }
}

pub(super) const UNSIGNED: &str = "unsigned (made by an older release)";

/// Where a recovery that was interrupted, or an earlier one, has left recovery files.
fn other_copies(state_dir: &Path) -> Vec<PathBuf> {
    let mut folders = vec![state_dir.to_owned()];
    for parent in [state_dir.to_owned(), state_dir.join("roots")] {
        let entries = std::fs::read_dir(parent).into_iter().flatten().filter_map(Result::ok);
        let is_kept =
            |name: &str| name.starts_with("before-recovery-") || name.bytes().all(|b| b.is_ascii_alphanumeric());
        let mut found: Vec<PathBuf> =
            entries.filter(|entry| entry.file_name().to_str().is_some_and(is_kept)).map(|entry| entry.path()).collect();
        found.sort();
        folders.extend(found);
    }
    let names = [recovery::FILE.to_owned(), format!("{}.prev", recovery::FILE)];
    folders.iter().flat_map(|folder| names.iter().map(|name| folder.join(name))).collect()
}

pub(super) fn read(path: &Path) -> Result<Secret, RecoverError> {
    let fail = |source| RecoverError::Read { path: path.to_owned(), source };
    read_from(&mut File::open(path).map_err(fail)?).map_err(fail)
}

/// One buffer that never grows: what it held is wiped with it.
pub(super) fn read_from(source: &mut impl Read) -> io::Result<Secret> {
    let limit = FILE_MAX_BYTES + 1024;
    let mut bytes = Vec::with_capacity(limit + 1);
    source.take(limit as u64).read_to_end(&mut bytes)?;
    Ok(Secret::new(bytes))
}
