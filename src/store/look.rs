//! The kernel's file system for somebody who only looks: the operator's tool beside a running daemon, which has the lock.
//!
//! Takes no lock and refuses every write. What it reads is whole, since files are replaced by rename; two files may be of two
//! moments.

use std::io;
use std::path::Path;

use super::disk::{Disk, RealDisk};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct OnlyLook;

impl Disk for OnlyLook {
    type Lock = ();

    fn lock(&self, _: &Path) -> io::Result<Option<()>> {
        Ok(Some(()))
    }

    fn exposure(&self, path: &Path) -> io::Result<Option<&'static str>> {
        RealDisk.exposure(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        RealDisk.exists(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(path)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        RealDisk.read(path)
    }

    fn make_dir(&self, _: &Path) -> io::Result<()> {
        refuse()
    }

    fn write_new(&self, _: &Path, _: &[u8]) -> io::Result<()> {
        refuse()
    }

    fn sync_file(&self, _: &Path) -> io::Result<()> {
        refuse()
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        refuse()
    }

    fn link(&self, _: &Path, _: &Path) -> io::Result<()> {
        refuse()
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        refuse()
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        refuse()
    }
}

fn refuse() -> io::Result<()> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}
