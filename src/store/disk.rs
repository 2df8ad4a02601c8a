//! Everything that the store asks of a file system, one method for each step, so that a test can let any one of them fail.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, PosixFadviseAdvice, posix_fadvise};

use super::container::PAYLOAD_MAX_BYTES;
use super::error::Exposure;
use crate::types::Owner;

/// File operations of the store. An implementation adds no retry and no order of its own.
pub trait Disk {
    /// Keeps the lock for as long as it lives.
    type Lock;

    /// Takes the lock file for this process alone, and makes it if it is absent; `None` if somebody else has it. A file system that is
    /// read-only is locked all the same.
    fn lock(&self, path: &Path) -> io::Result<Option<Self::Lock>>;
    /// Why others could get at what is in the directory; `None` if it is ours alone.
    fn exposure(&self, path: &Path) -> io::Result<Option<Exposure>>;
    /// Whom the directory belongs to.
    fn owner(&self, path: &Path) -> Owner;
    /// Whether the name is there, whatever it stands for.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Bytes of a file; 0 if it is not there.
    fn size(&self, path: &Path) -> io::Result<u64>;
    /// Whether both names are one file, so that one sector less takes both away.
    fn is_one_file(&self, a: &Path, b: &Path) -> io::Result<bool>;
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
    /// rmdir(2); a directory that is not there is fine.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// The whole file, never through a symbolic link.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// [`Disk::read`] of a file that was just written and synced, from the medium as far as the kernel can be brought to it.
    fn read_back(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.read(path)
    }
    /// Before something is tried again.
    fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// The kernel's file system.
#[derive(Clone, Copy, Debug)]
pub struct RealDisk;

impl Disk for RealDisk {
    type Lock = Vec<Flock<File>>;

    fn lock(&self, path: &Path) -> io::Result<Option<Self::Lock>> {
        // The directory as well: a lock file that is absent while the file system is read-only may be made later by another one.
        let Some(folder) = flock(File::open(path.parent().unwrap_or(path))?)? else { return Ok(None) };
        let file = match open_lock(path, true) {
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => match open_lock(path, false) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(vec![folder])),
                opened => opened?,
            },
            opened => opened?,
        };
        Ok(flock(file)?.map(|file| vec![folder, file]))
    }

    fn exposure(&self, path: &Path) -> io::Result<Option<Exposure>> {
        let meta = fs::symlink_metadata(path)?;
        let (owner, own) = (Owner::of(&meta), Owner::own());
        Ok(if !meta.is_dir() {
            Some(Exposure::NoDirectory)
        } else if !owner.is(own) {
            Some(Exposure::OfAnother { owner, own })
        } else if meta.mode() & 0o077 != 0 {
            Some(Exposure::Open)
        } else {
            None
        })
    }

    fn owner(&self, path: &Path) -> Owner {
        fs::symlink_metadata(path).map_or_else(|_| Owner::own(), |meta| Owner::of(&meta))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match fs::symlink_metadata(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        match fs::symlink_metadata(path) {
            Ok(meta) => Ok(meta.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    fn is_one_file(&self, a: &Path, b: &Path) -> io::Result<bool> {
        let (a, b) = (fs::symlink_metadata(a)?, fs::symlink_metadata(b)?);
        Ok((a.dev(), a.ino()) == (b.dev(), b.ino()))
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

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        match fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        read_whole(&open_to_read(path)?)
    }

    fn read_back(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = open_to_read(path)?;
        // Clean pages are dropped, so that a disk is asked. A file system in memory has nothing else, and a kernel may refuse.
        let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        read_whole(&file)
    }
}

fn open_to_read(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)
}

fn read_whole(file: &File) -> io::Result<Vec<u8>> {
    let limit = PAYLOAD_MAX_BYTES + 1024;
    let mut bytes = Vec::with_capacity(4096);
    file.take(limit as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn flock(file: File) -> io::Result<Option<Flock<File>>> {
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}

/// The lock file: created once, never removed, since removing it would let two owners lock two different files.
fn open_lock(path: &Path, writable: bool) -> io::Result<File> {
    OpenOptions::new()
        .read(!writable)
        .write(writable)
        .create(writable)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path)
}
