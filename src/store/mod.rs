//! The state directory: a few small files that are replaced whole, and never lost.
//!
//! Every file is wrapped by [`container`] (magic, kind, version, digest), written by the steps of [`StateDir::replace`], and kept
//! with its previous generation beside it as `NAME.prev`. How the two are read, and made whole again, is in `reading`; how a full
//! disk is got over, in `spare`.
//!
//! Refuses directories that others can write to, symbolic links, and a second owner at the same time.

pub mod container;
mod disk;
mod error;
mod look;
mod reading;
mod run_file;
#[cfg(test)]
pub(crate) mod sim;
mod spare;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

pub use container::Kind;
pub use disk::{Disk, RealDisk};
pub use error::{Damage, Exposure, StoreError};
pub use look::OnlyLook;
#[cfg(test)]
use reading::READ_TRIES;
pub use reading::{Examined, Generation, LoadError, Loaded, Pair, Repaired};
pub use run_file::RunFile;
pub use spare::room_for;

/// An open state directory with exclusive use of it for as long as this, or a view of it, lives.
pub struct StateDir<D: Disk = RealDisk> {
    /// The state directory, also where `root` is one of its folders: whom it belongs to is whom all in it should belong to.
    top: PathBuf,
    root: PathBuf,
    disk: D,
    /// Newest generations that their readers have refused: whole to look at, and never to become the previous ones.
    refused: RefCell<BTreeSet<PathBuf>>,
    lock: Arc<D::Lock>,
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
        match disk.lock(&path).map_err(|source| failure(&disk, root, "lock", &path, source))? {
            Some(lock) => {
                let (top, root) = (root.to_owned(), root.to_owned());
                Ok(Self { top, root, disk, refused: RefCell::default(), lock: Arc::new(lock) })
            }
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

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// The same directory seen from one of its folders, under the same lock. The folder need not exist yet.
    pub fn inside(&self, folder: &str) -> Self
    where
        D: Clone,
    {
        Self {
            top: self.top.clone(),
            root: self.root.join(folder),
            disk: self.disk.clone(),
            refused: RefCell::default(),
            lock: Arc::clone(&self.lock),
        }
    }

    /// The names in a sub-directory, or with "" in the directory itself, sorted; none where it is absent.
    pub fn names(&self, dir: &str) -> Result<Vec<String>, StoreError> {
        let path = self.root.join(dir);
        let mut names = match self.disk.list(&path) {
            Ok(names) => names,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(self.failure("list", &path, source)),
        };
        names.sort();
        Ok(names)
    }

    /// A file that is whole and makes no sense.
    pub fn damaged(&self, name: &str) -> StoreError {
        StoreError::Damaged { path: self.root.join(name), damage: Damage::Foreign }
    }

    /// What was done to the names of a sub-directory outlives a power cut.
    pub fn sync_dir(&self, name: &str) -> Result<(), StoreError> {
        let path = self.root.join(name);
        self.disk.sync_dir(&path).map_err(|source| self.failure("sync", &path, source))
    }

    /// Removes an empty sub-directory; one that is absent is fine.
    pub fn remove_dir(&self, name: &str) -> Result<(), StoreError> {
        let path = self.root.join(name);
        self.disk.remove_dir(&path).map_err(|source| self.failure("remove", &path, source))?;
        self.sync_parent(&path)
    }

    /// Makes a sub-directory (0700) if it is absent, safe against a power cut.
    pub fn make_dir(&self, name: &str) -> Result<(), StoreError> {
        let path = self.root.join(name);
        self.step("create", &path, self.disk.make_dir(&path))?;
        self.sync_parent(&path)
    }

    /// Whether any generation of the file is there.
    pub fn exists(&self, name: &str) -> Result<bool, StoreError> {
        let path = self.root.join(name);
        for candidate in [path.clone(), previous(&path)] {
            if self.step("look at", &candidate, self.disk.exists(&candidate))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The names of the files in a sub-directory that end with `suffix`, without it, sorted.
    pub fn list(&self, dir: &str, suffix: &str) -> Result<Vec<String>, StoreError> {
        let path = self.root.join(dir);
        let names = self.step("list", &path, self.disk.list(&path))?;
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
    /// Steps: write `NAME.new`, fsync it, keep the old one as `NAME.prev`, rename, fsync the directory, read back. A current file
    /// that is damaged, or that its reader has refused, never becomes the previous generation.
    pub fn replace(&self, name: &str, kind: Kind, payload: &[u8]) -> Result<(), StoreError> {
        self.replace_one(name, kind, payload).map(drop)
    }

    /// Whether what was there became the previous generation.
    fn replace_one(&self, name: &str, kind: Kind, payload: &[u8]) -> Result<bool, StoreError> {
        let path = self.root.join(name);
        if payload.len() > container::PAYLOAD_MAX_BYTES {
            return Err(StoreError::TooLong { path, bytes: payload.len() });
        }
        let old = with_suffix(&path, OLD);
        // Wiped, both here and when read back: the host secret and the secret half of a request are stored as they are.
        let bytes = Zeroizing::new(container::wrap(kind, payload));

        self.step("remove", &old, self.disk.remove(&old))?;
        let new = self.write_new(&path, &bytes)?;
        let is_kept = !self.refused.borrow().contains(&path) && self.is_whole(&path, kind);
        if is_kept {
            self.step("link", &old, self.disk.link(&path, &old))?;
            self.step("rename", &old, self.disk.rename(&old, &previous(&path)))?;
            // When both names are already one file, rename(2) does nothing and leaves the source.
            self.step("remove", &old, self.disk.remove(&old))?;
        }
        self.put(&new, &path, &bytes).map(|()| is_kept)
    }

    /// Writes `NAME.new`, down to the medium. What could not be written whole takes no room.
    fn write_new(&self, path: &Path, bytes: &[u8]) -> Result<PathBuf, StoreError> {
        let new = with_suffix(path, NEW);
        self.step("remove", &new, self.disk.remove(&new))?;
        let written = self.step("write", &new, self.disk.write_new(&new, bytes));
        match written.and_then(|()| self.step("sync", &new, self.disk.sync_file(&new))) {
            Ok(()) => Ok(new),
            Err(error) => {
                let _ = self.disk.remove(&new);
                Err(error)
            }
        }
    }

    /// Gives what [`StateDir::write_new`] has written its name, and reads it back.
    fn put(&self, new: &Path, path: &Path, bytes: &Zeroizing<Vec<u8>>) -> Result<(), StoreError> {
        self.step("rename", new, self.disk.rename(new, path))?;
        self.sync_parent(path)?;
        self.refused.borrow_mut().remove(path);
        match self.disk.read_back(path).map(Zeroizing::new) {
            Ok(back) if back == *bytes => Ok(()),
            Ok(_) => Err(StoreError::Damaged { path: path.to_owned(), damage: Damage::ReadBack }),
            Err(source) => Err(self.failure("read back", path, source)),
        }
    }

    /// [`StateDir::replace`], twice: both generations hold this content. For files that are written once and must outlive a bad
    /// sector, and for those whose older content must not stay on the disk. A stop between the two leaves what `replace` leaves.
    pub fn replace_both(&self, name: &str, kind: Kind, payload: &[u8]) -> Result<(), StoreError> {
        self.replace(name, kind, payload)?;
        if self.replace_one(name, kind, payload)? {
            return Ok(());
        }
        // What was just written could not be read for a moment, and the previous generation is an older one still.
        let (path, bytes) = (self.root.join(name), Zeroizing::new(container::wrap(kind, payload)));
        let new = self.write_new(&path, &bytes)?;
        self.put(&new, &previous(&path), &bytes)
    }

    /// Moves both generations into a sub-directory that exists, under the same name. Whoever reads them there reads them as whole
    /// files of ours. A stop in between leaves each generation at one of the two places or at both; moving again goes on.
    pub fn move_into(&self, folder: &str, name: &str) -> Result<(), StoreError> {
        let (path, target) = (self.root.join(name), self.root.join(folder).join(name));
        // The previous generation first: what is left behind alone must never be the older one.
        let moves = [(previous(&path), previous(&target)), (path.clone(), target.clone())];
        let exists = |file: &Path| self.step("look at", file, self.disk.exists(file));
        for (from, to) in &moves {
            if exists(from)? && !exists(to)? {
                self.step("move", from, self.disk.link(from, to))?;
            }
        }
        // Safe at the new place before it leaves the old one: no file system promises that for a rename between two directories.
        self.sync_parent(&target)?;
        for (from, _) in &moves {
            self.step("move", from, self.disk.remove(from))?;
        }
        self.sync_parent(&path)
    }

    /// Moves both generations from one name to another, which must be free. A stop in between leaves each at one of the two.
    pub fn move_out(&self, from: &str, to: &str) -> Result<(), StoreError> {
        let (path, target) = (self.root.join(from), self.root.join(to));
        let exists = |file: &Path| self.disk.exists(file).map_err(|source| self.failure("look at", file, source));
        for (from, to) in [(previous(&path), previous(&target)), (path.clone(), target.clone())] {
            if exists(&from)? && !exists(&to)? {
                self.disk.link(&from, &to).map_err(|source| self.failure("move", &from, source))?;
            }
        }
        self.sync_parent(&target)?;
        for from in [previous(&path), path.clone()] {
            self.disk.remove(&from).map_err(|source| self.failure("move", &from, source))?;
        }
        self.sync_parent(&path)
    }

    /// Gives both generations a second name in a sub-directory that exists. Both names are one file until either is replaced.
    pub fn link_into(&self, folder: &str, name: &str) -> Result<(), StoreError> {
        let (path, target) = (self.root.join(name), self.root.join(folder).join(name));
        for (from, to) in [(previous(&path), previous(&target)), (path.clone(), target.clone())] {
            let exists = |file: &Path| self.disk.exists(file).map_err(|source| self.failure("look at", file, source));
            if exists(&from)? {
                self.disk.remove(&to).map_err(|source| self.failure("link", &to, source))?;
                self.disk.link(&from, &to).map_err(|source| self.failure("link", &from, source))?;
            }
        }
        self.sync_parent(&target)
    }

    fn sync_parent(&self, path: &Path) -> Result<(), StoreError> {
        let dir = path.parent().unwrap_or(&self.root);
        self.step("sync", dir, self.disk.sync_dir(dir))
    }

    fn step<T>(&self, what: &'static str, path: &Path, result: io::Result<T>) -> Result<T, StoreError> {
        result.map_err(|source| self.failure(what, path, source))
    }

    fn failure(&self, what: &'static str, path: &Path, source: io::Error) -> StoreError {
        failure(&self.disk, &self.top, what, path, source)
    }

    /// Removes both generations; for keys that the operator destroys. The caller has asked for confirmation.
    pub fn destroy(&self, name: &str) -> Result<(), StoreError> {
        let path = self.root.join(name);
        for file in [previous(&path), with_suffix(&path, NEW), with_suffix(&path, OLD), path.clone()] {
            self.step("remove", &file, self.disk.remove(&file))?;
        }
        self.sync_parent(&path)
    }

    /// Removes what writes that were cut short left behind in a sub-directory, or with "" in the directory itself.
    pub fn sweep(&self, dir: &str) -> Result<(), StoreError> {
        let path = self.root.join(dir);
        let names = match self.disk.list(&path) {
            Ok(names) => names,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(self.failure("list", &path, source)),
        };
        let left: Vec<_> = names.iter().filter(|name| name.ends_with(NEW) || name.ends_with(OLD)).collect();
        for name in &left {
            let file = path.join(name);
            self.step("remove", &file, self.disk.remove(&file))?;
        }
        match left.is_empty() {
            true => Ok(()),
            false => self.step("sync", &path, self.disk.sync_dir(&path)),
        }
    }
}

/// What the kernel said of something in the directory.
fn failure<D: Disk>(disk: &D, top: &Path, what: &'static str, path: &Path, source: io::Error) -> StoreError {
    match source.kind() {
        io::ErrorKind::PermissionDenied => {
            StoreError::Denied { what, path: path.to_owned(), root: top.to_owned(), owner: disk.owner(top), source }
        }
        _ => StoreError::io(what, path, source),
    }
}

/// Endings of names that are there only while a file is replaced.
const NEW: &str = ".new";
const OLD: &str = ".old";
/// Ending of the older generation of a file.
pub const PREVIOUS: &str = ".prev";

fn previous(path: &Path) -> PathBuf {
    with_suffix(path, PREVIOUS)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests;
