//! Files of providers: certificate authorities and tokens, as they are now. What was opened is looked at, so that whoever can put another file
//! in its place has to be one of those who may have written it. A pipe in its place holds nobody up.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use zeroize::Zeroizing;

/// Bytes of certificate authorities. Those of a system have about 220 kB.
const ROOTS_MAX_BYTES: u64 = 4 << 20;

/// Whoever may write it decides whom KEKs are sent to: root and our own user, as for the configuration that names it.
pub(super) fn read_roots(path: &Path) -> io::Result<Vec<u8>> {
    let file = open(path, |owner, mode| {
        if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
            return Some("belongs to another user, who could name authorities of his own: chown root");
        }
        (mode & 0o022 != 0)
            .then_some("can be written to by others, who could name authorities of their own: chmod go-w")
    })?;
    let mut bytes = Vec::new();
    file.take(ROOTS_MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Kept fresh by an agent that may be a user of its own, and not by everybody. One byte more than `max` shows that it is longer.
pub(super) fn read_token(path: &Path, max: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let everybody = |_, mode| (mode & 0o002 != 0).then_some("can be written to by everybody: chmod o-w");
    let mut bytes = Zeroizing::new(Vec::new());
    open(path, everybody)?.take(max + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn open(path: &Path, refuse: impl FnOnce(u32, u32) -> Option<&'static str>) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits()).open(path)?;
    let meta = file.metadata()?;
    let why = if meta.is_file() { refuse(meta.uid(), meta.mode()) } else { Some("is no regular file") };
    why.map_or(Ok(file), |why| Err(io::Error::new(io::ErrorKind::PermissionDenied, why)))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    #[test]
    fn what_others_could_have_written_is_not_trusted_and_a_pipe_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "content").unwrap();
        let with_mode = |mode| fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let of = |error: io::Error| error.to_string();
        for (mode, roots, token) in [(0o644, true, true), (0o664, false, true), (0o646, false, false)] {
            with_mode(mode);
            assert_eq!((read_roots(&path).is_ok(), read_token(&path, 64).is_ok()), (roots, token), "{mode:o}");
        }
        assert!(of(read_roots(&path).unwrap_err()).contains("chmod go-w"));
        assert!(of(read_token(&path, 64).unwrap_err()).contains("chmod o-w"));
        with_mode(0o644);
        assert_eq!(read_token(&path, 3).unwrap().len(), 4, "longer than 3");
        if nix::unistd::geteuid().is_root() {
            chown(&path, Some(1), None).unwrap();
            assert!(of(read_roots(&path).unwrap_err()).contains("belongs to another user"));
            assert!(read_token(&path, 64).is_ok());
        }
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        for error in [read_roots(&pipe).unwrap_err(), read_token(&pipe, 64).unwrap_err()] {
            assert!(of(error).contains("no regular file"));
        }
    }
}
