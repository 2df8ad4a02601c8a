//! Files of the machine, below a folder that is `/` but for tests.
//!
//! They are read bounded, only if they are regular, and never written.

pub(super) mod units;

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::types::read_regular_text;

/// Bytes of any file that is read here: manifests, units, tables of the kernel.
const FILE_MAX_BYTES: u64 = 1 << 20;

pub(super) struct Machine {
    root: PathBuf,
    /// Whose files and processes are to be trusted: 0, but for tests.
    pub(super) root_uid: u32,
}

/// Why a file says nothing.
#[derive(Debug)]
pub(super) enum Unread {
    Missing,
    Denied,
    Other(String),
}

impl Machine {
    pub(super) const fn new(root: PathBuf, root_uid: u32) -> Self {
        Self { root, root_uid }
    }

    /// A path of the machine, where it is here.
    pub(super) fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    pub(super) fn meta(&self, path: impl AsRef<Path>) -> Result<Metadata, Unread> {
        fs::metadata(self.at(path)).map_err(Unread::of)
    }

    /// The text of a small regular file; wiped, since some hold keys.
    pub(super) fn read(&self, path: impl AsRef<Path>) -> Result<Zeroizing<String>, Unread> {
        read_regular_text(&self.at(path), FILE_MAX_BYTES).map_err(Unread::of)
    }

    /// Names in a folder, in order. Of one that is not there it has none.
    pub(super) fn names(&self, folder: impl AsRef<Path>) -> Result<Vec<String>, Unread> {
        let entries = match fs::read_dir(self.at(folder)).map_err(Unread::of) {
            Err(Unread::Missing) => return Ok(Vec::new()),
            other => other?,
        };
        // A name that is not UTF-8 then leads to no file, and that is told.
        let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
        let mut names = entries.map(name).collect::<io::Result<Vec<_>>>().map_err(Unread::of)?;
        names.sort();
        Ok(names)
    }

    /// Ids of processes.
    pub(super) fn processes(&self) -> Result<Vec<String>, Unread> {
        let is_number = |name: &String| name.bytes().all(|byte| byte.is_ascii_digit());
        Ok(self.names("/proc")?.into_iter().filter(is_number).collect())
    }
}

impl Unread {
    pub(super) fn of(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => Self::Missing,
            ErrorKind::PermissionDenied => Self::Denied,
            _ => Self::Other(error.to_string()),
        }
    }

    pub(super) fn text(&self, path: impl AsRef<Path>) -> String {
        let path = path.as_ref().display();
        match self {
            Self::Missing => format!("{path} does not exist"),
            Self::Denied => format!("{path} is closed to this user: run it as root"),
            Self::Other(why) => format!("{path} cannot be read: {why}"),
        }
    }
}
