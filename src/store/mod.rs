//! The state directory: a few small files that are replaced whole, and never lost.
//!
//! Every file is wrapped by [`container`] (magic, kind, version, digest), written by the steps of [`StateDir::replace`], and kept
//! with its previous generation beside it as `NAME.prev`. [`StateDir::load`] answers with the newest generation that is whole and
//! that its reader accepts, and says when that was not the newest.
//!
//! Refuses directories that others can write to, symbolic links, and a second owner at the same time.

pub mod container;
mod disk;
mod error;
mod look;
#[cfg(test)]
pub(crate) mod sim;

use std::path::{Path, PathBuf};

pub use container::Kind;
pub use disk::{Disk, RealDisk};
pub use error::{Damage, StoreError};
pub use look::OnlyLook;

/// An open state directory with exclusive use of it for as long as this lives.
pub struct StateDir<D: Disk = RealDisk> {
    root: PathBuf,
    disk: D,
    _lock: D::Lock,
}

/// Which generation was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// The one that was written last.
    Newest,
    /// The one before, since the newest is damaged or gone.
    Previous,
}

/// A file's content, and where it came from.
pub struct Loaded<T> {
    /// What the reader made of it.
    pub value: T,
    /// See [`Generation`].
    pub generation: Generation,
}

impl StateDir<RealDisk> {
    /// [`StateDir::open_on`] the kernel's file system.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        Self::open_on(RealDisk, root)
    }

    /// [`StateDir::create_on`] the kernel's file system.
    pub fn create(root: &Path) -> Result<Self, StoreError> {
        Self::create_on(RealDisk, root)
    }
}

impl<D: Disk> StateDir<D> {
    const LOCK: &'static str = "lock";

    /// Opens an existing directory and locks it.
    pub fn open_on(disk: D, root: &Path) -> Result<Self, StoreError> {
        if let Some(reason) = disk.exposure(root).map_err(|source| StoreError::io("open", root, source))? {
            return Err(StoreError::Insecure { path: root.to_owned(), reason });
        }
        let path = root.join(Self::LOCK);
        match disk.lock(&path).map_err(|source| StoreError::io("lock", &path, source))? {
            Some(lock) => Ok(Self { root: root.to_owned(), disk, _lock: lock }),
            None => Err(StoreError::InUse { path: root.to_owned() }),
        }
    }

    /// Makes the directory if it is absent (0700), safe against a power cut, then opens it.
    pub fn create_on(disk: D, root: &Path) -> Result<Self, StoreError> {
        disk.make_dir(root).map_err(|source| StoreError::io("create", root, source))?;
        if let Some(parent) = root.parent() {
            match disk.sync_dir(parent) {
                // Entered and not read, as /var/lib/private of systemd: whoever gave us the directory answers for its name.
                Err(source) if source.kind() == std::io::ErrorKind::PermissionDenied => {}
                synced => synced.map_err(|source| StoreError::io("sync", parent, source))?,
            }
        }
        Self::open_on(disk, root)
    }

    /// Makes a sub-directory (0700) if it is absent, safe against a power cut.
    pub fn make_dir(&self, name: &str) -> Result<(), StoreError> {
        let path = self.root.join(name);
        self.disk.make_dir(&path).map_err(|source| StoreError::io("create", &path, source))?;
        self.sync_parent(&path)
    }

    /// Whether any generation of the file is there.
    pub fn exists(&self, name: &str) -> Result<bool, StoreError> {
        let path = self.root.join(name);
        for candidate in [path.clone(), previous(&path)] {
            if self.disk.exists(&candidate).map_err(|source| StoreError::io("look at", &candidate, source))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The names of the files in a sub-directory that end with `suffix`, without it, sorted.
    pub fn list(&self, dir: &str, suffix: &str) -> Result<Vec<String>, StoreError> {
        let path = self.root.join(dir);
        let names = self.disk.list(&path).map_err(|source| StoreError::io("list", &path, source))?;
        let mut stems: Vec<String> = names
            .iter()
            .filter_map(|name| name.strip_suffix(suffix).or_else(|| name.strip_suffix(&format!("{suffix}.prev"))))
            .map(str::to_owned)
            .collect();
        stems.sort();
        stems.dedup();
        Ok(stems)
    }

    /// Replaces the file such that at every moment the old or the new content can be read.
    ///
    /// Steps: write `NAME.new`, fsync it, keep the old one as `NAME.prev`, rename, fsync the directory, read back. A damaged
    /// current file never becomes the previous generation.
    pub fn replace(&self, name: &str, kind: Kind, payload: &[u8]) -> Result<(), StoreError> {
        let path = self.root.join(name);
        let dir = path.parent().unwrap_or(&self.root);
        let (new, old) = (with_suffix(&path, NEW), with_suffix(&path, OLD));
        // Wiped, both here and when read back: the host secret and the secret half of a request are stored as they are.
        let bytes = zeroize::Zeroizing::new(container::wrap(kind, payload));
        let step = |what: &'static str, at: &Path, result: std::io::Result<()>| {
            result.map_err(|source| StoreError::io(what, at, source))
        };

        step("remove", &new, self.disk.remove(&new))?;
        step("remove", &old, self.disk.remove(&old))?;
        step("write", &new, self.disk.write_new(&new, &bytes))?;
        step("sync", &new, self.disk.sync_file(&new))?;
        if self.read_whole(&path, kind).is_ok() {
            step("link", &old, self.disk.link(&path, &old))?;
            step("rename", &old, self.disk.rename(&old, &previous(&path)))?;
            // When both names are already one file, rename(2) does nothing and leaves the source.
            step("remove", &old, self.disk.remove(&old))?;
        }
        step("rename", &new, self.disk.rename(&new, &path))?;
        step("sync", dir, self.disk.sync_dir(dir))?;
        match self.disk.read(&path).map(zeroize::Zeroizing::new) {
            Ok(back) if back == bytes => Ok(()),
            Ok(_) => Err(StoreError::Damaged { path, damage: Damage::ReadBack }),
            Err(source) => Err(StoreError::io("read back", &path, source)),
        }
    }

    /// [`StateDir::replace`], twice: both generations hold this content. For files that are written once and must outlive a bad
    /// sector, and for those whose older content must not stay on the disk. A stop between the two leaves what `replace` leaves.
    pub fn replace_both(&self, name: &str, kind: Kind, payload: &[u8]) -> Result<(), StoreError> {
        self.replace(name, kind, payload)?;
        self.replace(name, kind, payload)
    }

    /// The newest generation that is whole and that `parse` accepts; `parse` is given the version that the file has and its
    /// content. A version above [`container::Kind`]'s own is refused before.
    pub fn load<T, E>(
        &self,
        name: &str,
        kind: Kind,
        parse: impl Fn(u8, &[u8]) -> Result<T, E>,
    ) -> Result<Loaded<T>, LoadError<E>> {
        let path = self.root.join(name);
        let newest = match self.read_and_parse(&path, kind, &parse) {
            Ok(value) => return Ok(Loaded { value, generation: Generation::Newest }),
            // A newer program wrote it: falling back would quietly undo what that one did.
            Err(LoadError::Store(error @ StoreError::Newer { .. })) => return Err(LoadError::Store(error)),
            Err(error) => error,
        };
        match self.read_and_parse(&previous(&path), kind, &parse) {
            Ok(value) => Ok(Loaded { value, generation: Generation::Previous }),
            Err(_) => Err(newest),
        }
    }

    /// Moves both generations into a sub-directory that exists, under the same name. Whoever reads them there reads them as whole
    /// files of ours. A stop in between leaves each generation at one of the two places or at both; moving again goes on.
    pub fn move_into(&self, folder: &str, name: &str) -> Result<(), StoreError> {
        let (path, target) = (self.root.join(name), self.root.join(folder).join(name));
        // The previous generation first: what is left behind alone must never be the older one.
        let moves = [(previous(&path), previous(&target)), (path.clone(), target.clone())];
        let exists = |file: &Path| self.disk.exists(file).map_err(|source| StoreError::io("look at", file, source));
        for (from, to) in &moves {
            if exists(from)? && !exists(to)? {
                self.disk.link(from, to).map_err(|source| StoreError::io("move", from, source))?;
            }
        }
        // Safe at the new place before it leaves the old one: no file system promises that for a rename between two directories.
        self.sync_parent(&target)?;
        for (from, _) in &moves {
            self.disk.remove(from).map_err(|source| StoreError::io("move", from, source))?;
        }
        self.sync_parent(&path)
    }

    fn sync_parent(&self, path: &Path) -> Result<(), StoreError> {
        let dir = path.parent().unwrap_or(&self.root);
        self.disk.sync_dir(dir).map_err(|source| StoreError::io("sync", dir, source))
    }

    /// Removes both generations; for keys that the operator destroys. The caller has asked for confirmation.
    pub fn destroy(&self, name: &str) -> Result<(), StoreError> {
        let path = self.root.join(name);
        for file in [previous(&path), with_suffix(&path, NEW), with_suffix(&path, OLD), path.clone()] {
            self.disk.remove(&file).map_err(|source| StoreError::io("remove", &file, source))?;
        }
        self.sync_parent(&path)
    }

    /// Removes what writes that were cut short left behind in a sub-directory, or with "" in the directory itself.
    pub fn sweep(&self, dir: &str) -> Result<(), StoreError> {
        let path = self.root.join(dir);
        let names = match self.disk.list(&path) {
            Ok(names) => names,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(StoreError::io("list", &path, source)),
        };
        let left: Vec<_> = names.iter().filter(|name| name.ends_with(NEW) || name.ends_with(OLD)).collect();
        for name in &left {
            let file = path.join(name);
            self.disk.remove(&file).map_err(|source| StoreError::io("remove", &file, source))?;
        }
        match left.is_empty() {
            true => Ok(()),
            false => self.disk.sync_dir(&path).map_err(|source| StoreError::io("sync", &path, source)),
        }
    }

    fn read_and_parse<T, E>(
        &self,
        path: &Path,
        kind: Kind,
        parse: impl Fn(u8, &[u8]) -> Result<T, E>,
    ) -> Result<T, LoadError<E>> {
        let (version, bytes) = self.read_whole(path, kind).map_err(LoadError::Store)?;
        parse(version, &bytes).map_err(LoadError::Content)
    }

    fn read_whole(&self, path: &Path, kind: Kind) -> Result<(u8, zeroize::Zeroizing<Vec<u8>>), StoreError> {
        let bytes = self.disk.read(path).map_err(|source| StoreError::io("read", path, source))?;
        let bytes = zeroize::Zeroizing::new(bytes);
        match container::unwrap(kind, &bytes) {
            Ok((version, payload)) => Ok((version, zeroize::Zeroizing::new(payload.to_vec()))),
            Err(Damage::Newer(version)) => Err(StoreError::Newer { path: path.to_owned(), version }),
            Err(damage) => Err(StoreError::Damaged { path: path.to_owned(), damage }),
        }
    }
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

/// Endings of names that are there only while a file is replaced.
const NEW: &str = ".new";
const OLD: &str = ".old";

fn previous(path: &Path) -> PathBuf {
    with_suffix(path, ".prev")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests;
