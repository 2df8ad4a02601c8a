//! A small file of our own in a folder that ends with the boot (`/run`): what one process leaves to the next one, and no boot to another.
//!
//! Held open, so that a confined process reads and writes it without a right to its path. What cannot be read is empty, and what
//! cannot be written is left out: whoever uses it must get on without.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::OFlag;

/// The file, open. Clones are one file.
#[derive(Clone, Debug)]
pub struct RunFile {
    file: Arc<File>,
    path: PathBuf,
}

impl RunFile {
    /// Makes it where there is none. `None` without a folder for it, or with a file that is not ours alone.
    pub fn open(path: &Path) -> Option<Self> {
        let open = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
            .open(path);
        let file = open.ok().filter(|file| is_ours(file, path))?;
        Some(Self { file: Arc::new(file), path: path.to_owned() })
    }

    /// Where it lies, for people.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its first bytes, at most so many.
    pub fn read(&self, most: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut file = &*self.file;
        let read = file.rewind().and_then(|()| file.take(most).read_to_end(&mut bytes));
        if read.is_ok() { bytes } else { Vec::new() }
    }

    /// In place of what was there. The length first: what is cut off is for the reader to refuse.
    pub fn write(&self, bytes: &[u8]) {
        let _ = self.file.set_len(0).and_then(|()| (&*self.file).write_all(bytes));
    }
}

/// A file of one name that nobody else can read. What root makes in a folder of another user is that user's, whose processes come next.
fn is_ours(file: &File, path: &Path) -> bool {
    let own = nix::unistd::geteuid();
    let owner = |path: &Path| path.metadata().map(|folder| (folder.uid(), folder.gid())).ok();
    let Ok(meta) = file.metadata() else { return false };
    if !meta.is_file() || meta.nlink() != 1 || meta.mode() & 0o077 != 0 {
        return false;
    }
    match path.parent().and_then(owner) {
        Some((user, group)) if own.is_root() && user != 0 => {
            meta.uid() == user || meta.uid() == 0 && fchown(file, Some(user), Some(group)).is_ok()
        }
        _ => meta.uid() == own.as_raw(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_by_the_next_one_and_a_file_that_is_not_ours_alone_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = RunFile::open(&path).unwrap();
        assert_eq!(file.read(64), b"");
        file.write(b"a longer text");
        file.write(b"shorter");
        assert_eq!((file.read(64), RunFile::open(&path).unwrap().read(3)), (b"shorter".to_vec(), b"sho".to_vec()));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o604)).unwrap();
        for path in [&link, &path, &dir.path().join("none/file")] {
            assert!(RunFile::open(path).is_none(), "{}", path.display());
        }
    }
}
