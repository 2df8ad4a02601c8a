//! What a PIN is, and its file, which must be nobody else's to read.

use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::types::Secret;

/// Bytes. PKCS#11 leaves the length to the token; none that we know takes more.
const PIN_MAX: usize = 255;

/// The file's bytes without one newline at their end.
pub(super) struct Pin {
    bytes: Secret,
    file: Option<FileId>,
}

impl Pin {
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.expose()
    }

    /// Where it was read, if that tells one PIN from another.
    pub(super) const fn file(&self) -> Option<FileId> {
        self.file
    }
}

#[cfg(test)]
impl Pin {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self::in_file(bytes, 1)
    }

    pub(super) fn in_file(bytes: &[u8], inode: u64) -> Self {
        Self { bytes: Secret::copy_of(bytes), file: Some(FileId::numbered(inode)) }
    }

    pub(super) fn in_no_lasting_file(bytes: &[u8]) -> Self {
        Self { bytes: Secret::copy_of(bytes), file: None }
    }
}

/// Tells the file of a PIN from the one before and the next: device, inode, and when it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId(pub(super) u64, pub(super) u64, pub(super) i64, pub(super) i64);

impl FileId {
    /// `None` for a file that every start makes anew, whatever is in it.
    pub(super) fn of(path: &Path, meta: &Metadata) -> Option<Self> {
        let path = path.canonicalize().ok()?;
        let own = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let folders = [Some(Path::new("/run/credentials")), own.as_deref()];
        let is_made_anew = folders.into_iter().flatten().any(|folder| path.starts_with(folder));
        (!is_made_anew).then(|| Self(meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec()))
    }

    #[cfg(test)]
    pub(super) const fn numbered(inode: u64) -> Self {
        Self(1, inode, 1, 0)
    }
}

/// From its file, if that is root's or ours and nobody else's to read; or why not.
pub(super) fn read(path: &Path) -> Result<Pin, String> {
    // O_NONBLOCK, so that a pipe in its place holds nobody up.
    let open = OpenOptions::new().read(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits()).open(path);
    let mut file = open.map_err(|error| error.to_string())?;
    let meta = file.metadata().map_err(|error| error.to_string())?;
    if !meta.is_file() {
        return Err("is not a regular file".to_owned());
    }
    if let Some(why) = open_to_others(meta.uid(), meta.gid(), meta.mode(), nix::unistd::geteuid().as_raw()) {
        return Err(why.to_owned());
    }
    Ok(Pin { bytes: content(&mut file)?, file: FileId::of(path, &meta) })
}

fn open_to_others(owner: u32, group: u32, mode: u32, own: u32) -> Option<&'static str> {
    if owner != 0 && owner != own {
        return Some("belongs to another user");
    }
    // systemd credentials (systemd.exec(5), "LoadCredential=") are root's with an ACL for the service's user, whose mask shows
    // as read permission of group 0.
    let allowed = if (owner, group) == (0, 0) { 0o440 } else { 0o400 } | 0o200;
    (mode & 0o777 & !allowed != 0).then_some("can be read or written by others: chmod 0400")
}

fn content(file: &mut File) -> Result<Secret, String> {
    // On the stack and wiped: a growing vector would leave copies behind. One byte more for the newline, one for what is too much.
    let mut buffer = Zeroizing::new([0; PIN_MAX + 2]);
    let mut len = 0;
    loop {
        match file.read(&mut buffer[len..]).map_err(|error| error.to_string())? {
            0 => break,
            read => len += read,
        }
    }
    let bytes = buffer[..len].strip_suffix(b"\n").unwrap_or(&buffer[..len]);
    match bytes.len() {
        0 => Err("is empty".to_owned()),
        1..=PIN_MAX => Ok(Secret::copy_of(bytes)),
        _ => Err(format!("holds more than {PIN_MAX} bytes")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pin");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    fn error(path: &Path) -> String {
        read(path).err().unwrap()
    }

    #[test]
    fn one_newline_at_the_end_is_no_part_of_the_pin() {
        for (content, pin) in [("1234", "1234"), ("1234\n", "1234"), ("1234\n\n", "1234\n"), (" 1 ", " 1 ")] {
            let (_dir, path) = file(content.as_bytes(), 0o600);
            assert!(read(&path).unwrap().bytes.same_as(pin.as_bytes()), "{content:?}");
        }
        let (_dir, path) = file(&[b'x'; PIN_MAX], 0o400);
        assert_eq!(read(&path).unwrap().bytes().len(), PIN_MAX);
        let (_dir, path) = file(&[b'x'; PIN_MAX + 1], 0o400);
        assert!(error(&path).contains("more than"));
        let (_dir, path) = file(b"\n", 0o400);
        assert!(error(&path).contains("empty"));
    }

    #[test]
    fn a_file_that_others_can_read_or_that_is_no_file_is_refused() {
        for mode in [0o604, 0o460, 0o620, 0o501] {
            let (_dir, path) = file(b"1234", mode);
            assert!(error(&path).contains("by others"), "{mode:o}");
        }
        let (dir, path) = file(b"1234", 0o400);
        assert!(error(dir.path()).contains("regular"));
        assert!(error(&path.with_extension("none")).contains("No such file"));
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(error(&pipe).contains("regular"));
    }

    #[test]
    fn the_owner_is_root_or_we_and_group_0_reads_only_what_is_roots() {
        assert_eq!(open_to_others(1000, 1000, 0o600, 1000), None);
        assert_eq!(open_to_others(0, 0, 0o440, 1000), None);
        assert!(open_to_others(1000, 0, 0o440, 1000).is_some());
        assert!(open_to_others(0, 1000, 0o440, 1000).is_some());
        assert!(open_to_others(1001, 1001, 0o400, 1000).is_some());
    }
}
