//! Files of providers: certificate authorities and tokens, as they are now. What was opened is looked at, so that whoever can put another file
//! in its place has to be one of those who may have written it. A pipe in its place holds nobody up.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use zeroize::Zeroizing;

use super::reads::Reads;
use super::{ErrorKind, ProviderError};

/// Bytes of a token. Kubernetes' have about 1,200; AWS takes up to 20,000 (sts:AssumeRoleWithWebIdentity).
const TOKEN_MAX_BYTES: usize = 20_000;
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

/// A token for a login that an agent keeps fresh, as it is now: printable ASCII without spaces (RFC 6750 §2.1), and white space around it.
pub(super) async fn token(path: &Path, reads: &Reads) -> Result<Zeroizing<String>, ProviderError> {
    let path = path.to_owned();
    reads.run(move || read_token(&path)).await
}

fn read_token(path: &Path) -> Result<Zeroizing<String>, ProviderError> {
    let wrong = |why: &str| ProviderError::new(ErrorKind::Login, format!("token_file {}: {why}", path.display()));
    let bytes = read_fresh(path).map_err(|error| wrong("cannot be read").because(error))?;
    if bytes.len() > TOKEN_MAX_BYTES {
        return Err(wrong("is too long for a token"));
    }
    let token = std::str::from_utf8(bytes.trim_ascii()).unwrap_or_default();
    let fits = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(Zeroizing::new(token.to_owned())) } else { Err(wrong("holds no token")) }
}

/// Written by an agent that may be a user of its own, and not by everybody. One byte more than the maximum shows that it is longer.
fn read_fresh(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let everybody = |_, mode| (mode & 0o002 != 0).then_some("everyone can write to it: chmod o-w");
    let mut bytes = Zeroizing::new(Vec::with_capacity(TOKEN_MAX_BYTES + 1));
    open(path, everybody)?.take(TOKEN_MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn open(path: &Path, refuse: impl FnOnce(u32, u32) -> Option<&'static str>) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits()).open(path)?;
    let meta = file.metadata()?;
    let why = if meta.is_file() { refuse(meta.uid(), meta.mode()) } else { Some("is not a regular file") };
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
            assert_eq!((read_roots(&path).is_ok(), read_fresh(&path).is_ok()), (roots, token), "{mode:o}");
        }
        assert!(of(read_roots(&path).unwrap_err()).contains("chmod go-w"));
        assert!(of(read_fresh(&path).unwrap_err()).contains("chmod o-w"));
        with_mode(0o644);
        if nix::unistd::geteuid().is_root() {
            chown(&path, Some(1), None).unwrap();
            assert!(of(read_roots(&path).unwrap_err()).contains("belongs to another user"));
            assert!(read_fresh(&path).is_ok());
        }
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        for error in [read_roots(&pipe).unwrap_err(), read_fresh(&pipe).unwrap_err()] {
            assert!(of(error).contains("not a regular file"));
        }
    }

    #[tokio::test]
    async fn a_token_is_read_as_it_is_now_and_what_is_none_is_refused_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let reads = Reads::new();
        let shown = |error: ProviderError| {
            assert_eq!(error.kind(), ErrorKind::Login);
            error.to_string()
        };
        assert!(shown(token(&path, &reads).await.unwrap_err()).contains(path.to_str().unwrap()));
        for content in ["a.b.c\n", " d.e.f "] {
            fs::write(&path, content).unwrap();
            assert_eq!(token(&path, &reads).await.unwrap().as_str(), content.trim());
        }
        for bad in [" \n".to_owned(), "CANARY b".to_owned(), "\u{e9}".to_owned(), "C".repeat(TOKEN_MAX_BYTES + 1)] {
            fs::write(&path, bad).unwrap();
            let shown = shown(token(&path, &reads).await.unwrap_err());
            assert!(!shown.contains("CANARY") && !shown.contains("CCC"), "{shown}");
        }
    }
}
