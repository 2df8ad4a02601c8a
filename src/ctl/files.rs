//! Files that nodes exchange: read whole and bounded, written once and never over another.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::failed::Failed;
use super::output::unfit;
use crate::control::Answer;
use crate::keyring::bundle::fingerprint;
use crate::keyring::exchanged::FileKind;
use crate::types::{Class, Explain, Explained, hex};

/// Bytes. A bundle of the largest keyring whose line the control socket takes (`control::LINE_MAX_BYTES`, in hexadecimal).
const FILE_MAX_BYTES: u64 = crate::control::LINE_MAX_BYTES / 2 - 1024;

#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("cannot read {path}", path = path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is too long for a request or a bundle", path = path.display())]
    TooLong { path: PathBuf },
    #[error("cannot write {path}", path = path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Explained for FileError {
    fn class(&self) -> Class {
        Class::Misconfigured
    }

    fn hint(&self) -> &str {
        match self {
            Self::Write { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => {
                "no file is overwritten: remove it if it is an old one, or name another"
            }
            Self::Read { .. } | Self::TooLong { .. } | Self::Write { .. } => {
                "name a readable file; --out must be a new file in a writable folder"
            }
        }
    }
}

/// `-` is standard input.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, Failed> {
    read(path).map_err(|error| file_error(&error))
}

/// The same, of one kind: another kind is called by its name, and anything else is the reader's affair.
pub(super) fn read_kind(path: &Path, wanted: FileKind) -> Result<Vec<u8>, Failed> {
    let bytes = read_file(path)?;
    match FileKind::of(&bytes) {
        Some(found) if found != wanted => Err(Failed::new(&Explain::new(
            &WrongKind { found, wanted },
            Class::Corrupt,
            &format!("name the file that is {wanted}"),
        ))),
        Some(_) | None => Ok(bytes),
    }
}

/// A file that is good, at the wrong place.
#[derive(Debug, thiserror::Error)]
#[error("this is {found}, not {wanted}")]
pub(super) struct WrongKind {
    pub(super) found: FileKind,
    pub(super) wanted: FileKind,
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let fail = |source| FileError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let taken = match path == Path::new("-") {
        true => io::stdin().take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes),
        false => File::open(path).map_err(fail)?.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes),
    };
    taken.map_err(fail)?;
    if bytes.len() as u64 > FILE_MAX_BYTES { Err(FileError::TooLong { path: path.to_owned() }) } else { Ok(bytes) }
}

/// A file of ours, empty until the daemon has answered. Removed again if that does not come to pass.
pub(super) struct OutFile<'a> {
    path: &'a Path,
    file: File,
    is_whole: bool,
}

impl<'a> OutFile<'a> {
    pub(super) fn create(path: &'a Path) -> Result<Self, Failed> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|source| Self::error(path, source))?;
        Ok(Self { path, file, is_whole: false })
    }

    /// Writes the file of an answer; gives its fingerprint.
    pub(super) fn fill(self, answer: Answer) -> Result<String, Failed> {
        let Answer::File(hex) = answer else { return Err(unfit()) };
        let bytes = hex::decode(hex).map_err(|_| unfit())?;
        self.write(&bytes)?;
        Ok(fingerprint(&bytes))
    }

    pub(super) fn write(mut self, bytes: &[u8]) -> Result<(), Failed> {
        let written = self.file.write_all(bytes).and_then(|()| self.file.sync_all());
        written.map_err(|source| Self::error(self.path, source))?;
        self.is_whole = true;
        Ok(())
    }

    fn error(path: &Path, source: io::Error) -> Failed {
        file_error(&FileError::Write { path: path.to_owned(), source })
    }
}

impl Drop for OutFile<'_> {
    fn drop(&mut self) {
        if !self.is_whole {
            // What is left of it is empty or cut, and in the way of the next attempt at worst.
            let _ = std::fs::remove_file(self.path);
        }
    }
}

pub(super) fn file_error(error: &FileError) -> Failed {
    Failed::new(error)
}

/// A file of ours in a folder of files that are made anew each time: it appears whole, in place of an older one.
pub(super) fn put(path: &Path, bytes: &[u8]) -> Result<(), Failed> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let written = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    written().map_err(|source| file_error(&FileError::Write { path: path.to_owned(), source }))
}
