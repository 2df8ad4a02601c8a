//! The PIN: read from its file each time, never tried twice when the token refused it, and hardly more often when it may have.
//!
//! A token locks itself after a few wrong PINs, for good or until its security officer comes, and not every token says that it was the
//! PIN. So a PIN is remembered (`tries`) before it is given, and forgotten only after a login or an answer that proves that it was not
//! looked at; and the last try that a token says it has left is not ours to spend. A process that answers one question only and has
//! no file to remember in spends no try once the token says that one went wrong.

use std::path::PathBuf;
use std::time::Duration;

use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::TokenInfo;
use cryptoki::types::RawAuthPin;
use nix::time::{ClockId, clock_gettime};

use super::fault::{Failure, Step, never_reached_the_pin};
use super::pin::{self, Pin};
use super::tries::{Tries, Verdict};
use crate::seal::fault::{Fault, FaultCode};
use crate::store::RunFile;

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
        let pin = pin::read(&self.path).map_err(|why| fault(format!("{}: {why}", self.path.display())))?;
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

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
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pin");
        std::fs::write(&path, "wrong\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
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
