//! Everything that the store asks of a file system, one method for each step, so that a test can let any one of them fail.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

use super::container::PAYLOAD_MAX_BYTES;

/// File operations of the store. An implementation adds no retry and no order of its own.
pub trait Disk {
    /// Keeps the lock for as long as it lives.
    type Lock;

    /// Takes the lock file for this process alone, and makes it if it is absent; `None` if somebody else has it.
    fn lock(&self, path: &Path) -> io::Result<Option<Self::Lock>>;
    /// Why others could get at what is in the directory; `None` if it is ours alone.
    fn exposure(&self, path: &Path) -> io::Result<Option<&'static str>>;
    /// Whether the name is there, whatever it stands for.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Creates a directory with mode 0700; one that exists is fine.
    fn make_dir(&self, path: &Path) -> io::Result<()>;
    /// Names in a directory.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Creates a file that must not exist (0600) and writes all bytes, without syncing.
    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// fsync(2) of a file.
    fn sync_file(&self, path: &Path) -> io::Result<()>;
    /// fsync(2) of a directory.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// link(2).
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// rename(2).
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// unlink(2); a file that is not there is fine.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The whole file, never through a symbolic link.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
}

/// The kernel's file system.
#[derive(Clone, Copy, Debug)]
pub struct RealDisk;

impl Disk for RealDisk {
    type Lock = Flock<File>;

    fn lock(&self, path: &Path) -> io::Result<Option<Self::Lock>> {
        match Flock::lock(open_lock(path)?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(lock)),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno.into()),
        }
    }

    fn exposure(&self, path: &Path) -> io::Result<Option<&'static str>> {
        let meta = fs::symlink_metadata(path)?;
        Ok(if !meta.is_dir() {
            Some("is not a directory")
        } else if meta.uid() != nix::unistd::geteuid().as_raw() {
            Some("belongs to another user")
        } else if meta.mode() & 0o077 != 0 {
            Some("can be entered by other users")
        } else {
            None
        })
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match fs::symlink_metadata(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(path)?.map(|entry| entry.map(|e| e.file_name().to_string_lossy().into_owned())).collect()
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(bytes)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let limit = PAYLOAD_MAX_BYTES + 1024;
        let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)?;
        let mut bytes = Vec::with_capacity(4096);
        file.take(limit as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// The lock file: created once, never removed, since removing it would let two owners lock two different files.
fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path)
}
