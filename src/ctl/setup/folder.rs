//! The folder: written whole or not at all, over nothing, and compared with what is there.
//!
//! All files are made with O_EXCL in a new folder beside it, synced, and their modes looked at. Then that folder is renamed to its name,
//! which the kernel refuses unless nothing is there or an empty folder (rename(2): ENOTEMPTY, ENOTDIR).

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::types::{Class, Explained};

/// Only its owner needs to come in: what has to be read by others is installed in its place.
const FOLDER_MODE: u32 = 0o700;
const MODE_BITS: u32 = 0o7777;

/// One file to be.
#[derive(Debug)]
pub(super) struct Made {
    /// With `/` for folders below.
    pub(super) name: &'static str,
    pub(super) text: String,
}

impl Made {
    /// Scripts are run. Nobody else may write to any of them.
    fn mode(&self) -> u32 {
        if self.text.starts_with("#!") { 0o755 } else { 0o644 }
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum FolderError {
    #[error("{path} is not the name of a folder", path = path.display())]
    Name { path: PathBuf },
    #[error("cannot write {path}", path = path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is there already, and not an empty folder", path = path.display())]
    Taken { path: PathBuf },
    #[error("{path} was not written with the mode {mode:04o}", path = path.display())]
    Mode { path: PathBuf, mode: u32 },
    #[error("cannot read {path}", path = path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Explained for FolderError {
    fn class(&self) -> Class {
        Class::Misconfigured
    }

    fn hint(&self) -> &str {
        match self {
            Self::Name { .. } => "name a new folder in a folder that is there, not . or ..",
            Self::Write { .. } => "name a new folder in a folder that you can write to",
            Self::Taken { .. } => "nothing is overwritten: name a new folder, or compare with `nodeseal setup --check`",
            Self::Mode { .. } => "use a file system that keeps modes",
            Self::Read { .. } => "name a folder that `nodeseal setup` has written and that you can read",
        }
    }
}

/// See the module.
pub(super) fn write(folder: &Path, files: &[Made]) -> Result<(), FolderError> {
    let name = || FolderError::Name { path: folder.to_owned() };
    let mut beside = OsString::from(".");
    beside.push(folder.file_name().ok_or_else(name)?);
    beside.push(format!(".{}", std::process::id()));
    let new = folder.with_file_name(beside);
    let fail = |path: &Path| {
        let path = path.to_owned();
        |source| FolderError::Write { path, source }
    };
    DirBuilder::new().mode(FOLDER_MODE).create(&new).map_err(fail(&new))?;
    let written = fill(&new, files).and_then(|()| {
        fs::rename(&new, folder).map_err(|source| match source.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                FolderError::Taken { path: folder.to_owned() }
            }
            _ => FolderError::Write { path: folder.to_owned(), source },
        })
    });
    if written.is_err() {
        // What is left of it is a folder of this process's own, and in nobody's way.
        let _ = fs::remove_dir_all(&new);
        return written;
    }
    // The name itself, on disk.
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(fail(parent))
}

fn fill(new: &Path, files: &[Made]) -> Result<(), FolderError> {
    for made in files {
        let path = new.join(made.name);
        let put = || {
            if let Some(below) = path.parent().filter(|below| *below != new) {
                DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(below)?;
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(made.mode()).open(&path)?;
            file.write_all(made.text.as_bytes())?;
            // Whatever the umask says.
            file.set_permissions(Permissions::from_mode(made.mode()))?;
            file.sync_all()?;
            file.metadata()
        };
        let found = put().map_err(|source| FolderError::Write { path: path.clone(), source })?;
        if found.mode() & MODE_BITS != made.mode() {
            return Err(FolderError::Mode { path, mode: made.mode() });
        }
    }
    Ok(())
}

/// How a file is not as it would be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    Missing,
    Differs,
    /// Somebody else than its owner can write to it.
    Writable,
}

impl State {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Missing => "is missing",
            Self::Differs => "differs from what these values give",
            Self::Writable => "can be written by others than its owner",
        }
    }
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) file: &'static str,
    pub(super) state: State,
}

/// What is not as it would be written. Other files in the folder are nobody's affair.
pub(super) fn compare(folder: &Path, files: &[Made]) -> Result<Vec<Finding>, FolderError> {
    let mut all = Vec::new();
    for made in files {
        let path = folder.join(made.name);
        let state = match look(&path, made) {
            Ok(state) => state,
            Err(source) if source.kind() == io::ErrorKind::NotFound => Some(State::Missing),
            Err(source) => return Err(FolderError::Read { path, source }),
        };
        all.extend(state.map(|state| Finding { file: made.name, state }));
    }
    Ok(all)
}

fn look(path: &Path, made: &Made) -> io::Result<Option<State>> {
    // O_NONBLOCK, so that a pipe in its place holds nobody up.
    let file = OpenOptions::new().read(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits()).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Ok(Some(State::Differs));
    }
    let mut found = Vec::new();
    file.take(made.text.len() as u64 + 1).read_to_end(&mut found)?;
    if found != made.text.as_bytes() {
        return Ok(Some(State::Differs));
    }
    Ok((meta.mode() & 0o022 != 0).then_some(State::Writable))
}
