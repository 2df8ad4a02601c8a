//! What can be wrong with the state directory, and what to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::types::{Class, Explained, Owner};

/// A failure of the state directory. Paths are for the operator, never for a caller of the API.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file is there but not whole.
    #[error("{path} {damage}", path = path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// In which way.
        damage: Damage,
    },
    /// The kernel does not let us: as a rule something in the directory belongs to somebody else.
    #[error("cannot {what} {path}; if it belongs to another user: chown -R {chown} {root}", path = path.display(), chown = owner.for_chown(), root = root.display())]
    Denied {
        /// The step.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// The state directory.
        root: PathBuf,
        /// Whom everything in it is to belong to.
        owner: Owner,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// Somebody else holds the lock.
    #[error("{path} is in use by another nodeseal process", path = path.display())]
    InUse {
        /// The state directory.
        path: PathBuf,
    },
    /// What says which folder counts is lost, and more than one may.
    #[error("{path} is lost, and each of these folders may be the valid one: {folders}", path = path.display())]
    Ambiguous {
        /// The file that is lost.
        path: PathBuf,
        /// Names of the folders.
        folders: String,
    },
    /// Others could read or change our files, or we theirs.
    #[error("{path} {reason}", path = path.display())]
    Insecure {
        /// The directory.
        path: PathBuf,
        /// In which way.
        reason: Exposure,
    },
    /// The kernel said no.
    #[error("cannot {what} {path}", path = path.display())]
    Io {
        /// The step.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// More than is read of a file: it would take the place of one that can be read.
    #[error("{path} would have {bytes} bytes, which no start reads", path = path.display())]
    TooLong {
        /// Which file.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// A file of a later release.
    #[error("{path} has format version {version}, which is newer than this program", path = path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its version.
        version: u8,
    },
}

impl StoreError {
    pub(super) fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { what, path: path.to_owned(), source }
    }

    /// The file is not there at all.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// What was read for will not come back by waiting: damaged, missing, or on a sector that was tried often enough. Only then may
    /// the generation before take its place.
    pub fn is_lost(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Io { source, .. } => self.is_missing() || is_bad_sector(source),
            Self::Ambiguous { .. }
            | Self::Denied { .. }
            | Self::InUse { .. }
            | Self::Insecure { .. }
            | Self::Newer { .. }
            | Self::TooLong { .. } => false,
        }
    }

    /// There is no room: see [`super::StateDir::release_spare`].
    pub fn is_full(&self) -> bool {
        matches!(self.errno(), Some(Errno::ENOSPC | Errno::EDQUOT))
    }

    /// The file system is mounted read-only, or has become so after an error.
    pub fn is_read_only(&self) -> bool {
        self.errno() == Some(Errno::EROFS)
    }

    fn errno(&self) -> Option<Errno> {
        match self {
            Self::Io { source, .. } | Self::Denied { source, .. } => source.raw_os_error().map(Errno::from_raw),
            Self::Ambiguous { .. }
            | Self::Damaged { .. }
            | Self::InUse { .. }
            | Self::Insecure { .. }
            | Self::Newer { .. }
            | Self::TooLong { .. } => None,
        }
    }

    fn io_hint(&self) -> &'static str {
        match self.errno() {
            Some(Errno::ENOENT) => {
                "on a node that was never set up: `nodeseal init`; on any other: mount the file system of state_dir, or restore what is missing from a backup"
            }
            Some(Errno::ENOSPC | Errno::EDQUOT) => {
                "free space on the file system of the state directory; nothing was lost"
            }
            Some(Errno::EROFS) => {
                "the file system is read-only: see the kernel's log for why, and mount it read-write again"
            }
            Some(Errno::EIO | Errno::EUCLEAN | Errno::EBADMSG) => {
                "the disk cannot be read or written: see the kernel's log, copy the state directory while that is possible, and replace the disk"
            }
            Some(Errno::EMFILE | Errno::ENFILE) => "raise the limit of open files; nothing on the disk is damaged",
            Some(Errno::ENOMEM) => "free memory; nothing on the disk is damaged",
            Some(Errno::ELOOP) => {
                "a symbolic link is in the place of one of Nodeseal's files: put the file itself there"
            }
            _ => "check the file system: space, mount options, owner and mode",
        }
    }
}

impl Explained for StoreError {
    fn class(&self) -> Class {
        match self {
            Self::Ambiguous { .. } | Self::Damaged { .. } => Class::Corrupt,
            Self::InUse { .. } => Class::Unavailable,
            Self::Denied { .. } | Self::Insecure { .. } | Self::Newer { .. } => Class::Misconfigured,
            Self::TooLong { .. } => Class::Internal,
            Self::Io { .. } if self.is_missing() => Class::NotFound,
            Self::Io { .. } => Class::Unavailable,
        }
    }

    fn hint(&self) -> &str {
        match self {
            Self::Ambiguous { .. } => {
                "put an empty file `kept` into each folder that is not valid (`touch STATE_DIR/roots/NAME/kept`); the valid one has the newest `state`"
            }
            Self::Damaged { .. } => {
                "restore the file from a backup of this node's state directory; its previous generation was tried as well"
            }
            Self::Denied { .. } => {
                "run that chown as root: a tool that ran as root left something there; if all of it belongs to that user already, see the log of the security module"
            }
            Self::InUse { .. } => "use the running nodeseald instead (its control socket), or stop it first",
            Self::Insecure { reason, .. } => reason.hint(),
            Self::Io { .. } => self.io_hint(),
            Self::TooLong { .. } => {
                "nothing on the disk was changed: report this, with the output of `nodeseal status --json`"
            }
            Self::Newer { .. } => "install the release that wrote it, or a later one; older programs never touch it",
        }
    }
}

/// Errors by which a medium, or the file system's own checksum, says that a part of it cannot be read. They may pass nevertheless.
pub(super) fn is_bad_sector(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EIO | Errno::EUCLEAN | Errno::EBADMSG))
}

/// Why a directory is not one that only we can get at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// Something else has its name.
    NoDirectory,
    /// Its mode lets others in.
    Open,
    /// It belongs to somebody else.
    OfAnother {
        /// To whom.
        owner: Owner,
        /// As whom we run.
        own: Owner,
    },
}

impl Exposure {
    const fn hint(self) -> &'static str {
        match self {
            Self::NoDirectory => "name a directory of its own as state_dir",
            Self::Open => "chmod 0700 the directory: only the service's user may enter it",
            Self::OfAnother { own, .. } if own.is_root() => {
                "start nodeseald as that user, or name it as `user` under [sandbox]; if it is not the service's user, give the directory to the one that is, with all that is in it (chown -R)"
            }
            Self::OfAnother { .. } => {
                "give the directory to the service's user, with all that is in it (as root, `chown -R`), or run this as its owner"
            }
        }
    }
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDirectory => f.write_str("is not a directory"),
            Self::Open => f.write_str("can be entered by other users"),
            Self::OfAnother { owner, own } => write!(f, "belongs to {owner}, and this runs as {own}"),
        }
    }
}

/// In which way a file is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Another kind of file.
    #[error("is not the kind of file that its name says")]
    Foreign,
    /// A later version of the format.
    #[error("has format version {0}")]
    Newer(u8),
    /// The disk did not keep what was written.
    #[error("reads back differently from what was written")]
    ReadBack,
    /// Cut short or changed.
    #[error("is damaged: its digest does not fit")]
    Torn,
}
