//! What the files that a provider was made of looked like then, so that one that has changed since is taken up, however often that
//! was refused before.
//!
//! Content counts: a file that is written anew as it was is no change. It is read again only when the file itself says that it is another one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Bytes of a file that is read: the roots of a system have about 220 kB. A larger one is told from another by what the file system says.
const READ_MAX_BYTES: u64 = 4 << 20;

/// All files of one provider. A file that is not there is a look as well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Looks(BTreeMap<PathBuf, Option<Look>>);

#[derive(Clone, Debug)]
struct Look {
    /// Device, inode, bytes, and when it was written. A rename and a link that is swapped above a file change them.
    file: (u64, u64, u64, i64, i64),
    content: Option<[u8; 32]>,
}

impl PartialEq for Look {
    fn eq(&self, other: &Self) -> bool {
        match (&self.content, &other.content) {
            (Some(own), Some(other)) => own == other,
            (None, None) => self.file == other.file,
            _ => false,
        }
    }
}

impl Eq for Look {}

impl Looks {
    /// As they are now. What `before` has read is not read again.
    pub(super) fn at(paths: impl IntoIterator<Item = PathBuf>, before: &Self) -> Self {
        let look = |path: PathBuf| {
            let known = before.0.get(&path).and_then(Option::as_ref);
            let look = Look::at(&path, known);
            (path, look)
        };
        Self(paths.into_iter().map(look).collect())
    }

    /// Takes over how these look, where the same files are looked at.
    pub(super) fn adopt(&mut self, own: &Self) {
        for (path, look) in &own.0 {
            self.0.entry(path.clone()).and_modify(|old| old.clone_from(look));
        }
    }

    /// Whether one of the same files is another now. What was not looked at before has not changed.
    pub(super) fn differ_from(&self, before: &Self) -> bool {
        self.0.iter().any(|(path, look)| before.0.get(path).is_some_and(|before| before != look))
    }
}

impl Look {
    fn at(path: &Path, before: Option<&Self>) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        let file = (meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec());
        if let Some(before) = before.filter(|before| before.file == file) {
            return Some(before.clone());
        }
        let is_read = meta.is_file() && meta.size() <= READ_MAX_BYTES;
        let content = is_read.then(|| fs::read(path).ok()).flatten();
        Some(Self { file, content: content.map(|content| Sha256::digest(&content).into()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_written_anew_as_it_was_looks_the_same_and_one_that_changes_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("a"), folder.path().join("link"));
        let look = |before: &Looks| Looks::at([link.clone()], before);
        let none = Looks::default();
        let missing = look(&none);
        fs::write(&file, "one").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let first = look(&missing);
        assert_ne!(first, missing);
        fs::write(folder.path().join("b"), "one").unwrap();
        fs::rename(folder.path().join("b"), &file).unwrap();
        assert_eq!(look(&first), first);
        fs::write(folder.path().join("b"), "two").unwrap();
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(folder.path().join("b"), &link).unwrap();
        assert_ne!(look(&first), first);
        fs::remove_file(&link).unwrap();
        assert_eq!(look(&first), missing);
        assert!(missing.differ_from(&first) && !missing.differ_from(&none));
    }
}
