//! The listening socket: from the supervisor if it gives one, else made by us.
//!
//! Made under a tight umask and renamed into place, so that there is no moment with a wrong mode and none without a socket. A
//! stale socket file that a power cut left behind is taken over; one that a living process answers on never is.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::stat::{Mode, umask};

use crate::types::{Class, Explained, Owner};

#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    /// Its owner could replace the socket.
    #[error("the folder {path} belongs to {owner}, and this runs as {own}", path = path.display())]
    ForeignFolder {
        path: PathBuf,
        /// Whose it is.
        owner: Owner,
        /// As whom we run.
        own: Owner,
    },
    /// The supervisor's descriptor is not one.
    #[error("the supervisor handed over something else than one listening unix socket")]
    Activation(#[source] io::Error),
    /// A living process answers there.
    #[error("another process answers on {path}", path = path.display())]
    InUse { path: PathBuf },
    /// The kernel said no.
    #[error("cannot {what} {path}", path = path.display())]
    Io {
        what: &'static str,
        /// Socket or folder.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Others could replace the socket.
    #[error("the folder {path} can be written to by other users", path = path.display())]
    OpenFolder { path: PathBuf },
    /// Something else than a socket is there.
    #[error("{path} exists and is not a socket", path = path.display())]
    Occupied {
        /// What is there.
        path: PathBuf,
    },
}

impl Explained for ListenError {
    fn class(&self) -> Class {
        match self {
            Self::InUse { .. } | Self::Io { .. } => Class::Unavailable,
            Self::Activation(_) | Self::ForeignFolder { .. } | Self::OpenFolder { .. } | Self::Occupied { .. } => {
                Class::Misconfigured
            }
        }
    }

    fn hint(&self) -> &str {
        match self {
            Self::Activation(_) => "give the socket unit exactly one ListenStream= with a path",
            Self::ForeignFolder { .. } => {
                "start this as the folder's owner (`setpriv --reuid`, `User=` of the unit), or name a socket in another folder: only root and the own user are trusted with one"
            }
            Self::InUse { .. } => "stop the other process, or give each a socket of its own",
            Self::Io { .. } => {
                "check the folder: it must exist, the user of this process must be able to write to it, and the path must be shorter than 108 bytes"
            }
            Self::OpenFolder { .. } => {
                "use a folder that only root or the user of this process can write to, such as /run/nodeseal"
            }
            Self::Occupied { .. } => "move the file away, or name another socket",
        }
    }
}

/// The socket that the supervisor holds (sd_listen_fds(3)), if it holds one.
pub(crate) fn from_supervisor() -> Result<Option<UnixListener>, ListenError> {
    let mut fds = listenfd::ListenFd::from_env();
    match fds.len() {
        0 => Ok(None),
        2.. => Err(ListenError::Activation(io::ErrorKind::InvalidInput.into())),
        1 => fds.take_unix_listener(0).map_err(ListenError::Activation),
    }
}

/// Makes the socket with `mode`. Call before other threads exist: the umask is the process's.
pub(crate) fn bind(path: &Path, mode: u32) -> Result<UnixListener, ListenError> {
    bind_for(path, mode, Owners::default())
}

/// The same in a folder that is its owner's alone, if it has to be made.
pub(crate) fn bind_apart(path: &Path, mode: u32) -> Result<UnixListener, ListenError> {
    let made = path.parent().map(|folder| DirBuilder::new().mode(0o700).create(folder));
    // Whatever kept it from being made is found once more, and said.
    drop(made);
    bind(path, mode)
}

/// To whom a socket is given; absent: as the kernel makes it, by our own user and group and by those of a folder with a set group.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Owners {
    /// Whom root becomes next.
    pub(crate) user: Option<u32>,
    /// Who may connect, by the mode.
    pub(crate) group: Option<u32>,
}

/// The same for others.
pub(crate) fn bind_for(path: &Path, mode: u32, owners: Owners) -> Result<UnixListener, ListenError> {
    let fail = |what, at: &Path, source| ListenError::Io { what, path: at.to_owned(), source };
    let folder = path.parent().unwrap_or(Path::new("/"));
    check_folder(folder)?;
    check_stale(path)?;
    let temporary = path.with_extension(format!("new{}", std::process::id()));
    match fs::remove_file(&temporary) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(fail("remove", &temporary, source)),
        _ => {}
    }
    let old = umask(Mode::from_bits_truncate(!mode & 0o777));
    let bound = UnixListener::bind(&temporary);
    umask(old);
    let listener = bound.map_err(|source| fail("bind", &temporary, source))?;
    let Owners { user, group } = owners;
    if user.is_some() || group.is_some() {
        std::os::unix::fs::chown(&temporary, user, group).map_err(|source| fail("give away", &temporary, source))?;
    }
    fs::rename(&temporary, path).map_err(|source| fail("rename to", path, source))?;
    Ok(listener)
}

fn check_folder(folder: &Path) -> Result<(), ListenError> {
    let fail = |what, source| ListenError::Io { what, path: folder.to_owned(), source };
    match DirBuilder::new().mode(0o755).create(folder) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => return Err(fail("create", source)),
        _ => {}
    }
    let meta = fs::metadata(folder).map_err(|source| fail("look at", source))?;
    let (owner, own, path) = (Owner::of(&meta), Owner::own(), folder.to_owned());
    match (owner.is_root() || owner.is(own), meta.mode() & 0o022) {
        (_, mode) if mode != 0 => Err(ListenError::OpenFolder { path }),
        (false, _) => Err(ListenError::ForeignFolder { path, owner, own }),
        (true, _) => Ok(()),
    }
}

/// A process that was killed while it started a child is survived, until the child's exec, by a copy of its descriptors.
const STALE_TIMEOUT: Duration = Duration::from_millis(500);
const STALE_PAUSE: Duration = Duration::from_millis(20);

fn check_stale(path: &Path) -> Result<(), ListenError> {
    match fs::symlink_metadata(path) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(ListenError::Io { what: "look at", path: path.to_owned(), source }),
        Ok(meta) if !meta.file_type().is_socket() => return Err(ListenError::Occupied { path: path.to_owned() }),
        Ok(_) => {}
    }
    let give_up = Instant::now() + STALE_TIMEOUT;
    loop {
        match UnixStream::connect(path) {
            // ECONNREFUSED: nobody listens. Anything else may be somebody who is only busy (EAGAIN: the backlog is full).
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Ok(_) | Err(_) if Instant::now() < give_up => thread::sleep(STALE_PAUSE),
            Ok(_) | Err(_) => return Err(ListenError::InUse { path: path.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_stale_socket_is_taken_over_and_a_living_one_is_not() {
        let folder = folder();
        let path = folder.path().join("kms.sock");
        let first = bind(&path, 0o660).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
        assert!(matches!(bind(&path, 0o660), Err(ListenError::InUse { .. })));
        drop(first);
        let _second = bind(&path, 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_file_in_the_way_and_a_folder_open_to_others_are_refused() {
        let folder = folder();
        let path = folder.path().join("kms.sock");
        fs::write(&path, b"precious").unwrap();
        assert!(matches!(bind(&path, 0o660), Err(ListenError::Occupied { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        fs::remove_file(&path).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(bind(&path, 0o660), Err(ListenError::OpenFolder { .. })));
    }

    #[test]
    fn a_folder_of_another_user_is_refused_with_both_names() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: only root can give a folder away");
            return;
        }
        let folder = folder();
        std::os::unix::fs::chown(folder.path(), Some(1), Some(1)).unwrap();
        let error = bind(&folder.path().join("kms.sock"), 0o660).unwrap_err();
        assert!(error.to_string().ends_with(", and this runs as root"), "{error}");
        assert!(!error.to_string().contains("can be written to by other users"), "{error}");
    }
}
