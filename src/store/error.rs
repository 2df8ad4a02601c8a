//! What can be wrong with the state directory, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::types::Class;

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
    /// Somebody else holds the lock.
    #[error("{path} is in use by another nodeseal process", path = path.display())]
    InUse {
        /// The state directory.
        path: PathBuf,
    },
    /// Others could read or change our files.
    #[error("{path} {reason}", path = path.display())]
    Insecure {
        /// The directory.
        path: PathBuf,
        /// In which way.
        reason: &'static str,
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

    /// Decides retry and health.
    pub fn class(&self) -> Class {
        match self {
            Self::Damaged { .. } => Class::Corrupt,
            Self::InUse { .. } => Class::Unavailable,
            Self::Insecure { .. } | Self::Newer { .. } => Class::Misconfigured,
            Self::Io { .. } if self.is_missing() => Class::NotFound,
            Self::Io { .. } => Class::Unavailable,
        }
    }

    /// What the operator does next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Damaged { .. } => {
                "restore the file from a backup of this node's state directory; its previous generation was tried as well"
            }
            Self::InUse { .. } => "ask the running nodeseald instead (its control socket), or stop it first",
            Self::Insecure { .. } => {
                "make the directory belong to the service's user with mode 0700, or run this as that user"
            }
            Self::Io { .. } if self.is_missing() => {
                "run `nodeseal init` once on this node; if it was set up before, restore the file from a backup"
            }
            Self::Io { .. } => "look at the file system: space, mount options, owner and mode",
            Self::Newer { .. } => "install the release that wrote it, or a later one; older programs never touch it",
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
