//! The kernel's file system for somebody who only looks: the operator's tool beside a running daemon, which has the lock.
//!
//! Takes no lock and refuses every write. What it reads is whole, since files are replaced by rename; two files may be of two
//! moments.

use std::io;
use std::path::Path;

use super::disk::{Disk, RealDisk};
use super::error::Exposure;
use crate::types::Owner;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct OnlyLook;

impl Disk for OnlyLook {
    type Lock = ();

    fn lock(&self, _: &Path) -> io::Result<Option<()>> {
        Ok(Some(()))
    }

    fn exposure(&self, path: &Path) -> io::Result<Option<Exposure>> {
        RealDisk.exposure(path)
    }

    fn owner(&self, path: &Path) -> Owner {
        RealDisk.owner(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        RealDisk.exists(path)
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        RealDisk.size(path)
    }

    fn is_one_file(&self, a: &Path, b: &Path) -> io::Result<bool> {
        RealDisk.is_one_file(a, b)
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

    fn remove_dir(&self, _: &Path) -> io::Result<()> {
        refuse()
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        refuse()
    }
}

fn refuse() -> io::Result<()> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}
