//! The second factor of what gives keys away, and of what takes over those of a stranger: a file in the state directory that names whose.
//!
//! Whoever reaches the control socket alone, such as root of a container that has it mounted, can write no file there, and so carries no key
//! away and brings none of his own. The tool of an operator on the node makes it, holds a lock on it while it asks, and removes it again. One that
//! is left behind (the tool was killed, a backup was restored) is held by nobody and gives nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use crate::types::{Class, Explained, hex};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use sha2::{Digest, Sha256};

/// What is done, and with whom, in the words of the operator.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act<'a> {
    /// The keys of the bundle with this fingerprint are taken over.
    Accept(&'a str),
    /// A bundle is made for the request with this fingerprint.
    Bundle(&'a str),
    /// Every bundle from now on for the node whose identity has this fingerprint.
    Member(&'a str),
    /// The recovery file, for these recipients.
    Recovery(&'a [String]),
}

impl Act<'_> {
    fn file(self, state_dir: &Path) -> PathBuf {
        let (kind, whom) = match self {
            Self::Accept(fingerprint) => ("accept", fingerprint.to_owned()),
            Self::Bundle(fingerprint) => ("bundle", fingerprint.to_owned()),
            Self::Member(fingerprint) => ("member", fingerprint.to_owned()),
            Self::Recovery(recipients) => ("recovery", recipients.join(" ")),
        };
        let name = hex::encode(Sha256::digest(format!("{kind} {whom}")));
        state_dir.join(format!("consent-{name}"))
    }

    /// Whether somebody who may write to the state directory says so now. That the directory is closed to all others the keeper sees to.
    pub(crate) fn is_consented(self, state_dir: &Path) -> bool {
        // A link leads elsewhere, and a pipe would hold us up.
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(self.file(state_dir)) else {
            return false;
        };
        let is_file = file.metadata().is_ok_and(|meta| meta.is_file());
        is_file && matches!(Flock::lock(file, FlockArg::LockSharedNonblock), Err((_, Errno::EWOULDBLOCK)))
    }
}

/// The control socket alone is not enough.
#[derive(Debug, thiserror::Error)]
#[error(
    "no user who may write to the state directory, {folder}, has consented: the control socket alone neither gives a key away nor accepts one",
    folder = .0.display()
)]
pub(crate) struct NoConsent(
    /// Where the daemon has looked: the state directory that it runs with.
    pub PathBuf,
);

impl Explained for NoConsent {
    fn class(&self) -> Class {
        Class::Denied
    }

    fn hint(&self) -> &str {
        "run `nodeseal` of the same release on the node itself, as root or as the user of nodeseald; if `state_dir` has changed, restart nodeseald first"
    }
}

/// Holds for as long as it is kept.
#[derive(Debug)]
pub(crate) struct Consent {
    path: PathBuf,
    file: Flock<File>,
}

impl Consent {
    /// As the owner of the directory, if we are root.
    pub(crate) fn give(export: Act<'_>, state_dir: &Path) -> io::Result<Self> {
        let path = export.file(state_dir);
        let make = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = match make() {
            // Of one that was cut short, which may be of another owner.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => fs::remove_file(&path).and_then(|()| make())?,
            made => made?,
        };
        // Waits for nobody but a look at it.
        let file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| io::Error::from(errno))?;
        let given = Self { path, file };
        if nix::unistd::geteuid().is_root() {
            let owner = fs::metadata(state_dir)?;
            fchown(&*given.file, Some(owner.uid()), Some(owner.gid()))?;
        }
        Ok(given)
    }
}

impl Drop for Consent {
    fn drop(&mut self) {
        // One that stays is let go of, and counts for nothing.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consent_is_for_one_export_to_one_recipient_and_ends_when_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = folder.path();
        let age = ["age1x".to_owned(), "age1y".to_owned()];
        let all = [Act::Accept("a"), Act::Bundle("a"), Act::Bundle("b"), Act::Member("a"), Act::Recovery(&age)];
        for given in all {
            // One that was killed, or a backup, has left this.
            fs::write(given.file(state_dir), "").unwrap();
            assert!(!given.is_consented(state_dir), "nobody says it now");
            let consent = Consent::give(given, state_dir).unwrap();
            let held: Vec<_> = all.iter().filter(|export| export.is_consented(state_dir)).collect();
            assert!(held.len() == 1 && format!("{:?}", held[0]) == format!("{given:?}"), "{held:?}");
            drop(consent);
            assert!(!given.is_consented(state_dir));
        }
        assert_eq!(fs::read_dir(state_dir).unwrap().count(), 0);
        // A link to somewhere is none.
        std::os::unix::fs::symlink("/etc/passwd", all[0].file(state_dir)).unwrap();
        assert!(!all[0].is_consented(state_dir));
        assert!(Consent::give(all[0], &state_dir.join("absent")).is_err());
    }
}
