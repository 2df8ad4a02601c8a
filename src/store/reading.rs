//! Two generations of a file: which of them is read, what is damage and what only passes, and how a lost one is made anew.
//!
//! The generation before takes the place of the newest only where that is lost: missing, damaged, refused by its reader, or on a
//! sector that stays bad ([`StoreError::is_lost`]). Whatever else the kernel says (another owner, no descriptor, no memory) is an error
//! with its remedy: falling back on it would undo what was done, for a reason that is gone a moment later.

use std::path::Path;
use std::time::Duration;

use zeroize::Zeroizing;

use super::error::is_bad_sector;
use super::{Damage, Disk, Kind, StateDir, StoreError, container, previous};

/// Between two tries to read a file from what may be a bad sector. Beyond them the medium has given its word three times within
/// one and a half seconds, and its own repetitions come before that.
const READ_PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(1)];

/// How often in all.
#[cfg(test)]
pub(super) const READ_TRIES: usize = READ_PAUSES.len() + 1;

/// Which generation was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// The one that was written last.
    Newest,
    /// The one before, since the newest is lost.
    Previous,
}

/// A file's content, and where it came from.
#[derive(Debug)]
pub struct Loaded<T> {
    /// What the reader made of it.
    pub value: T,
    /// See [`Generation`].
    pub generation: Generation,
}

/// Both generations of a file, each with what its reader made of it.
#[derive(Debug)]
pub struct Examined<T, E> {
    /// The one that was written last.
    pub newest: Result<T, LoadError<E>>,
    /// The one before.
    pub previous: Result<T, LoadError<E>>,
}

/// What the two generations of a file are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pair {
    /// The same content twice ([`StateDir::replace_both`]): where they differ, a write was cut short after the first.
    Alike,
    /// What it is and what it was ([`StateDir::replace`]).
    Successive,
}

/// What [`StateDir::repair`] had to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repaired {
    /// Nothing: both are whole. Nothing was written.
    Nothing,
    /// One of them was lost, and is a copy of the other now.
    Anew(Generation),
}

/// Why nothing could be loaded: the file itself, or what its reader said of the content.
#[derive(Debug, thiserror::Error)]
pub enum LoadError<E> {
    /// The reader refused the content of a whole file.
    #[error(transparent)]
    Content(E),
    /// No whole file.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl<E> LoadError<E> {
    /// See [`StoreError::is_lost`]. What its reader refuses is lost, too.
    pub fn is_lost(&self) -> bool {
        match self {
            Self::Content(_) => true,
            Self::Store(error) => error.is_lost(),
        }
    }
}

/// A generation as it lies on the disk, and what its reader made of it.
struct Read<T> {
    bytes: Zeroizing<Vec<u8>>,
    value: T,
}

impl<D: Disk> StateDir<D> {
    /// The newest generation that is whole and that `parse` accepts; `parse` is given the version that the file has and its
    /// content. A version above [`container::Kind`]'s own is refused before. Blocks for a second and a half where a sector is bad.
    pub fn load<T, E>(
        &self,
        name: &str,
        kind: Kind,
        parse: impl Fn(u8, &[u8]) -> Result<T, E>,
    ) -> Result<Loaded<T>, LoadError<E>> {
        let path = self.root.join(name);
        let newest = match self.read_as(&path, kind, &parse) {
            Ok(read) => return Ok(Loaded { value: read.value, generation: Generation::Newest }),
            // Among them a newer program's: falling back would quietly undo what that one did.
            Err(error) if !error.is_lost() => return Err(error),
            Err(error) => error,
        };
        match self.read_as(&previous(&path), kind, &parse) {
            Ok(read) => {
                if matches!(newest, LoadError::Content(_)) {
                    self.refused.borrow_mut().insert(path);
                }
                Ok(Loaded { value: read.value, generation: Generation::Previous })
            }
            Err(error) if !error.is_lost() => Err(error),
            Err(_) => Err(newest),
        }
    }

    /// Both generations, and nothing is written.
    pub fn examine<T, E>(&self, name: &str, kind: Kind, parse: impl Fn(u8, &[u8]) -> Result<T, E>) -> Examined<T, E> {
        let path = self.root.join(name);
        let read = |path: &Path| self.read_as(path, kind, &parse).map(|read| read.value);
        Examined { newest: read(&path), previous: read(&previous(&path)) }
    }

    /// Writes a generation that is lost anew, byte for byte from the one that is not; and so the previous one where both are whole and
    /// are to be [`Pair::Alike`] and are not, and the newest where both names are one file. Writes nothing when all is well.
    ///
    /// The good copy is only read: it is neither renamed nor linked nor removed. Who goes on with a newer content than the disk has (a
    /// `state` in memory whose newest generation was lost) writes that instead.
    pub fn repair<T, E>(
        &self,
        name: &str,
        kind: Kind,
        pair: Pair,
        parse: impl Fn(u8, &[u8]) -> Result<T, E>,
    ) -> Result<Repaired, LoadError<E>> {
        let path = self.root.join(name);
        let old = previous(&path);
        let (lost, good) = match (self.read_as(&path, kind, &parse), self.read_as(&old, kind, &parse)) {
            (Ok(newest), Ok(before)) => {
                let is_one = self.step("look at", &path, self.disk.is_one_file(&path, &old))?;
                match pair {
                    _ if is_one => (Generation::Newest, before),
                    Pair::Alike if newest.bytes != before.bytes => (Generation::Previous, newest),
                    Pair::Alike | Pair::Successive => return Ok(Repaired::Nothing),
                }
            }
            (Ok(newest), Err(error)) if error.is_lost() => (Generation::Previous, newest),
            (Err(error), Ok(before)) if error.is_lost() => (Generation::Newest, before),
            (Err(error), Err(before)) if error.is_lost() && !before.is_lost() => return Err(before),
            (Err(error), _) | (Ok(_), Err(error)) => return Err(error),
        };
        let target = if lost == Generation::Newest { path.clone() } else { old };
        let new = self.write_new(&path, &good.bytes)?;
        self.put(&new, &target, &good.bytes)?;
        Ok(Repaired::Anew(lost))
    }

    fn read_as<T, E>(
        &self,
        path: &Path,
        kind: Kind,
        parse: impl Fn(u8, &[u8]) -> Result<T, E>,
    ) -> Result<Read<T>, LoadError<E>> {
        let mut read = self.disk.read(path);
        for pause in READ_PAUSES {
            match &read {
                Err(error) if is_bad_sector(error) => self.disk.pause(pause),
                Ok(_) | Err(_) => break,
            }
            read = self.disk.read(path);
        }
        let bytes = Zeroizing::new(self.step("read", path, read)?);
        let (version, payload) = content(path, kind, &bytes)?;
        let value = parse(version, payload).map_err(LoadError::Content)?;
        Ok(Read { bytes, value })
    }

    /// Whether it may become the previous generation; in doubt not.
    pub(super) fn is_whole(&self, path: &Path, kind: Kind) -> bool {
        let bytes = self.disk.read(path).map(Zeroizing::new);
        bytes.is_ok_and(|bytes| container::unwrap(kind, &bytes).is_ok())
    }
}

/// Version and payload.
fn content<'a>(path: &Path, kind: Kind, bytes: &'a [u8]) -> Result<(u8, &'a [u8]), StoreError> {
    container::unwrap(kind, bytes).map_err(|damage| match damage {
        Damage::Newer(version) => StoreError::Newer { path: path.to_owned(), version },
        damage => StoreError::Damaged { path: path.to_owned(), damage },
    })
}

#[cfg(test)]
mod tests;
