//! What the operator's words make of the configuration: orders to the keeper.

use super::seal::Seal;
use crate::keyring::keeper::{RenewOrder, ResealOrder};
use crate::keyring::recovery::{RECIPIENTS_MAX, Recipient, RecipientError};
use crate::seal::root::Parent;
use crate::types::{Backend, BackendError, Class, Explained};

/// Words of the operator that name no order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// `--to`
    #[error("--to")]
    To(#[source] BackendError),
    /// `--recovery-recipient`
    #[error("--recovery-recipient")]
    Recipient(#[source] RecipientError),
    /// More than a recovery file has room for.
    #[error("there are more than {RECIPIENTS_MAX} recovery recipients")]
    Recipients,
}

impl Explained for OrderError {
    fn class(&self) -> Class {
        Class::Misconfigured
    }

    fn hint(&self) -> &str {
        "see the help of the verb: `--help`"
    }
}

/// Checks recipients as the operator gave them.
pub fn recipients(texts: &[String]) -> Result<Vec<Recipient>, OrderError> {
    if texts.len() > RECIPIENTS_MAX {
        return Err(OrderError::Recipients);
    }
    texts.iter().map(|text| text.parse().map_err(OrderError::Recipient)).collect()
}

impl Seal {
    /// What `reseal` is to do, by this configuration and the operator's words. Under the same storage root key as before, and no
    /// counter gives way, unless the caller says so.
    pub fn order(&self, to: Option<&str>, recovery: Option<Vec<String>>) -> Result<ResealOrder, OrderError> {
        let backend = to.map_or(Ok(self.backend), |to| to.parse().map_err(OrderError::To))?;
        let recipients = recovery.map(|texts| recipients(&texts)).transpose()?;
        // The counter is the TPM's: another device must not need it at the next start.
        let guard = self.guard.filter(|_| backend == Backend::Tpm2);
        let to = self.to_backend(backend);
        Ok(ResealOrder { to, guard, recipients, parent: Parent::Same, replace_counter: false })
    }

    /// What `rotate-root` is to do, by this configuration and the operator's words.
    pub fn renew_order(&self, dry_run: bool, without_recovery_file: bool) -> RenewOrder {
        let guard = self.guard.filter(|_| self.backend == Backend::Tpm2);
        RenewOrder { to: self.to(), guard, without_recovery_file, dry_run }
    }
}
