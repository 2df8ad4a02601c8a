//! The PIN: read from its file each time, never tried twice when the token refused it, and hardly more often when it may have.
//!
//! A token locks itself after a few wrong PINs, for good or until its security officer comes, and not every token says that it was the
//! PIN. So a PIN is remembered (`tries`) before it is given, and forgotten only after a login or an answer that proves that it was not
//! looked at; and the last try that a token says it has left is not ours to spend. A process that answers one question only and has
//! no file to remember in spends no try once the token says that one went wrong.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::TokenInfo;
use cryptoki::types::RawAuthPin;
use nix::time::{ClockId, clock_gettime};
use zeroize::Zeroizing;

use super::fault::{Failure, Step, never_reached_the_pin};
use super::tries::{FileId, Tries, Verdict};
use crate::seal::fault::{Fault, FaultCode};
use crate::store::RunFile;
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

/// Where the PIN is, and what is known of the last one.
pub(super) struct Pins {
    path: PathBuf,
    tries: Tries,
    /// The process answers more than one question.
    serves: bool,
}

impl Pins {
    pub(super) fn new(path: PathBuf, serves: bool) -> Self {
        Self { path, tries: Tries::default(), serves }
    }

    /// From now on this file is the memory too.
    pub(super) fn remember_in(&mut self, file: RunFile) {
        self.tries = Tries::in_file(file, since_boot());
    }

    /// The PIN, unless it is not to be given to the token, or not now.
    pub(super) fn read(&self) -> Result<Pin, Failure> {
        let pin = read(&self.path).map_err(|why| fault(format!("{}: {why}", self.path.display())))?;
        let told = match self.tries.verdict(&pin, since_boot()) {
            Verdict::Give | Verdict::GiveOnceMore => return Ok(pin),
            Verdict::Wait(left) => format!(
                "was given to the token, which did not say whether it counted a try, and is tried once more in {} s",
                left.as_secs() + 1
            ),
            Verdict::Doubtful => format!(
                "was given to the token twice, which did not say whether it counted that, and is not tried again: prove it with \
                 another program, then {}",
                self.forget()
            ),
            Verdict::Refused => "was refused before and is not retried".to_owned(),
            Verdict::Unclear => format!(
                "may be one that the token has refused since the machine was started, and is not tried: if it is the right one, {}",
                self.forget()
            ),
        };
        Err(fault(format!("the PIN in {} {told}", self.path.display())))
    }

    /// How the operator makes us begin anew.
    fn forget(&self) -> String {
        let empty = |file: &RunFile| format!("empty {} (`truncate -s 0`) and ", file.path().display());
        format!("{}restart nodeseal-sealer", self.tries.file().map(empty).unwrap_or_default())
    }

    /// Logs in, if the token asks for it.
    pub(super) fn login(&mut self, session: &Session, info: &TokenInfo, pin: &Pin) -> Result<(), Failure> {
        if !info.login_required() {
            return Ok(());
        }
        let flags = Flags {
            locked: info.user_pin_locked(),
            final_try: info.user_pin_final_try(),
            count_low: info.user_pin_count_low(),
        };
        let now = since_boot();
        let in_doubt = self.tries.verdict(pin, now) != Verdict::Give;
        flags.guard(self.serves || self.tries.outlive(), in_doubt).map_err(fault)?;
        let raw = RawAuthPin::new(Box::new(pin.bytes().to_vec()));
        // Before the token is asked: it may not answer, or with a word that tells nothing.
        let before = self.tries.begin(pin, now);
        match session.login_with_raw(UserType::User, &raw) {
            // The login is the application's, not the session's.
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
                self.tries.set(Vec::new());
                Ok(())
            }
            Err(Error::Pkcs11(rv, function)) if never_reached_the_pin(rv) => {
                self.tries.set(before);
                Err(Failure::new(Step::Login, &Error::Pkcs11(rv, function)))
            }
            Err(error) => {
                let failure = Failure::new(Step::Login, &error);
                if failure.is_of_pin() {
                    self.tries.refused();
                    return Err(failure);
                }
                let detail = failure.into_fault().detail;
                Err(fault(format!("{detail}, which does not say whether the token has counted a wrong PIN")))
            }
        }
    }
}

/// Also while the machine slept.
fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// CK_TOKEN_INFO flags, PKCS#11 v3.0 §3.2.
struct Flags {
    /// CKF_USER_PIN_LOCKED.
    locked: bool,
    /// CKF_USER_PIN_FINAL_TRY.
    final_try: bool,
    /// CKF_USER_PIN_COUNT_LOW: at least one wrong PIN since the last right one, whoever gave it.
    count_low: bool,
}

impl Flags {
    /// `in_doubt`: this PIN was given before.
    fn guard(&self, remembers: bool, in_doubt: bool) -> Result<(), String> {
        if self.locked {
            return Err("the token says that its user PIN is locked".to_owned());
        }
        if self.final_try {
            return Err(
                "the token has one try left, which is not spent here: log in once with another program".to_owned()
            );
        }
        if self.count_low && in_doubt {
            return Err("the token was given a wrong PIN, and this may have been it: log in once with another program"
                .to_owned());
        }
        if self.count_low && !remembers {
            return Err(
                "the token was given a wrong PIN, maybe by Nodeseal: log in once with another program, or set seal.socket, \
                        so that one process remembers"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

fn fault(detail: String) -> Failure {
    Failure::last(Fault::new(FaultCode::HsmPin, detail))
}

fn read(path: &Path) -> Result<Pin, String> {
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

    #[test]
    fn a_locked_token_and_the_last_try_are_left_alone_and_one_question_alone_spends_no_second_try() {
        let flags = |locked, final_try, count_low| Flags { locked, final_try, count_low };
        for remembers in [true, false] {
            assert!(flags(false, false, false).guard(remembers, true).is_ok());
            assert!(flags(true, false, true).guard(remembers, false).unwrap_err().contains("locked"));
            assert!(flags(false, true, true).guard(remembers, false).unwrap_err().contains("one try left"));
            assert_eq!(flags(false, false, true).guard(remembers, false).is_ok(), remembers);
            assert!(flags(false, false, true).guard(remembers, true).unwrap_err().contains("may have been it"));
        }
    }

    #[test]
    fn a_refused_pin_is_known_again_until_the_file_changes() {
        let (_dir, path) = file(b"wrong\n", 0o600);
        let mut pins = Pins::new(path.clone(), true);
        let pin = pins.read().ok().unwrap();
        pins.tries.begin(&pin, since_boot());
        let failure = pins.read().err().unwrap();
        assert!(failure.fault().detail.contains("tried once more in 1"), "{}", failure.fault().detail);
        pins.tries.refused();
        let failure = pins.read().err().unwrap();
        assert_eq!(failure.fault().code, FaultCode::HsmPin);
        assert!(failure.fault().detail.contains("not retried") && !failure.fault().detail.contains("wrong"));
        std::fs::write(&path, "right").unwrap();
        assert!(pins.read().is_ok());
    }
}
