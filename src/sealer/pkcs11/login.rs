//! The PIN: read from its file each time, and never tried twice when the token refused it.
//!
//! A token locks itself after a few wrong PINs, for good or until its security officer comes. So a refused PIN is remembered (as a
//! salted digest) for as long as the process lives, and the last try that a token says it has left is not ours to spend. A
//! process that answers one question only has no memory: it spends no try once the token says that one went wrong.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::TokenInfo;
use cryptoki::types::RawAuthPin;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::fault::{Failure, Step};
use crate::seal::fault::{Fault, FaultCode};
use crate::types::{Secret, random};

/// Bytes. PKCS#11 leaves the length to the token; none that we know takes more.
const PIN_MAX: usize = 255;

/// The file's bytes without one newline at their end.
pub(super) struct Pin(Secret);

/// Where the PIN is, and which one was refused.
pub(super) struct Pins {
    path: PathBuf,
    refused: Option<Refused>,
    /// The process answers more than one question.
    remembers: bool,
}

struct Refused {
    salt: [u8; 16],
    digest: [u8; 32],
}

impl Pins {
    pub(super) const fn new(path: PathBuf, remembers: bool) -> Self {
        Self { path, refused: None, remembers }
    }

    /// The PIN, unless the token has refused this very one.
    pub(super) fn read(&self) -> Result<Pin, Failure> {
        let pin = read(&self.path).map_err(|why| fault(format!("{}: {why}", self.path.display())))?;
        match &self.refused {
            Some(refused) if digest(&refused.salt, &pin) == refused.digest => {
                Err(fault(format!("the PIN in {} was refused before and is not tried again", self.path.display())))
            }
            _ => Ok(pin),
        }
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
        flags.guard(self.remembers).map_err(fault)?;
        let raw = RawAuthPin::new(Box::new(pin.0.expose().to_vec()));
        match session.login_with_raw(UserType::User, &raw) {
            // The login is the application's, not the session's.
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
                self.refused = None;
                Ok(())
            }
            Err(error) => {
                let failure = Failure::new(Step::Login, &error);
                if failure.is_of_pin() {
                    self.remember(pin);
                }
                Err(failure)
            }
        }
    }

    fn remember(&mut self, pin: &Pin) {
        // Without randomness an unsalted digest, which is better than a second try.
        let salt = random::array().unwrap_or_default();
        self.refused = Some(Refused { salt, digest: digest(&salt, pin) });
    }
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
    fn guard(&self, remembers: bool) -> Result<(), String> {
        if self.locked {
            return Err("the token says that its user PIN is locked".to_owned());
        }
        if self.final_try {
            return Err(
                "the token has one try left, which is not spent here: log in once with another program".to_owned()
            );
        }
        if self.count_low && !remembers {
            return Err(
                "the token was given a wrong PIN, maybe ours: log in once with another program, or set seal.socket, \
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

fn digest(salt: &[u8; 16], pin: &Pin) -> [u8; 32] {
    // HMAC takes a key of any length (RFC 2104 §2).
    let Ok(mac) = Hmac::<Sha256>::new_from_slice(salt) else { unreachable!("HMAC takes any key") };
    mac.chain_update(pin.0.expose()).finalize().into_bytes().into()
}

fn read(path: &Path) -> Result<Pin, String> {
    // O_NONBLOCK, so that a pipe in its place holds nobody up.
    let open = OpenOptions::new().read(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits()).open(path);
    let mut file = open.map_err(|error| error.to_string())?;
    let meta = file.metadata().map_err(|error| error.to_string())?;
    if !meta.is_file() {
        return Err("is no regular file".to_owned());
    }
    if let Some(why) = open_to_others(meta.uid(), meta.gid(), meta.mode(), nix::unistd::geteuid().as_raw()) {
        return Err(why.to_owned());
    }
    content(&mut file)
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

fn content(file: &mut File) -> Result<Pin, String> {
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
        1..=PIN_MAX => Ok(Pin(Secret::copy_of(bytes))),
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
            assert!(read(&path).unwrap().0.same_as(pin.as_bytes()), "{content:?}");
        }
        let (_dir, path) = file(&[b'x'; PIN_MAX], 0o400);
        assert_eq!(read(&path).unwrap().0.expose().len(), PIN_MAX);
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
            assert!(flags(false, false, false).guard(remembers).is_ok());
            assert!(flags(true, false, true).guard(remembers).unwrap_err().contains("locked"));
            assert!(flags(false, true, true).guard(remembers).unwrap_err().contains("one try left"));
            assert_eq!(flags(false, false, true).guard(remembers).is_ok(), remembers);
        }
    }

    #[test]
    fn a_refused_pin_is_known_again_until_the_file_changes() {
        let (_dir, path) = file(b"wrong\n", 0o600);
        let mut pins = Pins::new(path.clone(), true);
        let pin = pins.read().ok().unwrap();
        pins.remember(&pin);
        let failure = pins.read().err().unwrap();
        assert_eq!(failure.fault().code, FaultCode::HsmPin);
        assert!(failure.fault().detail.contains("not tried again") && !failure.fault().detail.contains("wrong"));
        std::fs::write(&path, "right").unwrap();
        assert!(pins.read().is_ok());
    }
}
