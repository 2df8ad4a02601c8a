//! A build without age. It keeps whom a state names, so that a build with it finds them there.

use std::fmt;
use std::str::FromStr;

use super::{IdentityError, RecipientError, RecoveryError};
use crate::types::Secret;

/// Somebody who could open the recovery file. Public.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient(String);

impl FromStr for Recipient {
    type Err = RecipientError;

    fn from_str(_: &str) -> Result<Self, RecipientError> {
        Err(RecipientError::Absent)
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Recipient {
    pub(super) fn known(text: &str) -> Option<Self> {
        let is_one =
            text.starts_with("age1") && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        is_one.then(|| Self(text.to_owned()))
    }
}

/// Nobody has one.
pub enum Identity {}

impl Identity {
    /// None is taken.
    pub fn parse(_: &Secret) -> Result<Self, IdentityError> {
        Err(IdentityError::Absent)
    }

    /// Whom to encrypt to.
    pub fn recipient(&self) -> Recipient {
        match *self {}
    }
}

pub(super) fn fresh_code() -> Result<(Recipient, Secret), RecipientError> {
    Err(RecipientError::Absent)
}

pub(super) fn sealed(_: &[Recipient], _: &Secret) -> Result<Vec<u8>, RecoveryError> {
    Err(RecoveryError::Absent)
}

pub(super) fn opened(identity: &Identity, _: &[u8]) -> Result<Secret, RecoveryError> {
    match *identity {}
}
