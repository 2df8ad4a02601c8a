//! Whom the recovery file is for: recipients, a printed code, or the operator's plain refusal. One of them must be said.

use clap::Args;

use crate::config::{OrderError, recipients};
use crate::control::say;
use crate::keyring::recovery::{self, Recipient};
use crate::types::Secret;

/// The flags of `init`, `recover` and `reseal`.
#[derive(Args)]
pub(super) struct RecoveryArgs {
    /// Encrypt the recovery file to this age recipient (may be repeated)
    #[arg(long, value_name = "AGE1…")]
    recovery_recipient: Vec<String>,
    /// Print a recovery code once, and encrypt the recovery file to it
    #[arg(long)]
    recovery_code: bool,
    /// No recovery file: if the device is lost, all keys are lost
    #[arg(long, conflicts_with_all = ["recovery_recipient", "recovery_code"])]
    no_recovery: bool,
}

/// What was said.
pub(super) struct Recovery {
    pub(super) recipients: Vec<Recipient>,
    /// To be printed when everything else has succeeded.
    pub(super) code: Option<Secret>,
}

impl RecoveryArgs {
    /// `None` if nothing was said.
    pub(super) fn read(&self) -> Result<Option<Recovery>, OrderError> {
        if !self.no_recovery && !self.recovery_code && self.recovery_recipient.is_empty() {
            return Ok(None);
        }
        let mut recipients = recipients(&self.recovery_recipient)?;
        let fresh = self.recovery_code.then(recovery::fresh_code).transpose().map_err(OrderError::Recipient)?;
        let (recipient, code) = fresh.unzip();
        recipients.extend(recipient);
        Ok(Some(Recovery { recipients, code }))
    }
}

/// What to print of a code, in words.
pub(super) fn code_text(code: Option<&Secret>) -> String {
    shown(code).map_or_else(String::new, |code| {
        format!("\nrecovery code, shown this once; write it down and keep it away from this machine:\n\n  {code}\n\n")
    })
}

/// The next step after a code was printed.
pub(super) const PROVE: &str = "prove the recovery code: nodeseal recover --verify, and type it";

/// A code as it is shown, this once.
pub(super) fn shown(code: Option<&Secret>) -> Option<&str> {
    code.and_then(|code| std::str::from_utf8(code.expose()).ok())
}

/// After a failure: what could not be written at the end may be written by the next start, and this code opens it then.
pub(super) fn keep_code(code: Option<&Secret>) {
    if let Some(code) = shown(code) {
        say::warning(
            super::PROGRAM,
            &format!("this failed; if the node was set up anyway, its recovery code is:\n\n  {code}\n"),
        );
    }
}
