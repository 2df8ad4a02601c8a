//! The file by the library age.

use std::fmt;
use std::io::{Read, Write};
use std::str::FromStr;

use secrecy::ExposeSecret;
use zeroize::Zeroizing;

use super::{IdentityError, RecipientError, RecoveryError};
use crate::types::Secret;

/// Somebody who can open the recovery file. Public.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient(age::x25519::Recipient);

impl FromStr for Recipient {
    type Err = RecipientError;

    fn from_str(text: &str) -> Result<Self, RecipientError> {
        text.trim().parse().map(Self).map_err(|_| RecipientError::Form)
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Recipient {
    /// Operators may write spaces around one; a state has it in one way.
    pub(super) fn known(text: &str) -> Option<Self> {
        text.parse().ok().filter(|recipient: &Self| recipient.to_string() == text)
    }
}

/// What opens the recovery file: a secret that the operator keeps elsewhere.
pub struct Identity(age::x25519::Identity);

impl Identity {
    /// A fresh one, for a printed code.
    pub fn generate() -> Self {
        Self(age::x25519::Identity::generate())
    }

    /// From a key file of age, or from a typed code: comments are left out, spaces, hyphens inside of the code and case do not
    /// count; its own checksum finds typing errors (BIP 173).
    pub fn parse(text: &Secret) -> Result<Self, IdentityError> {
        let text = std::str::from_utf8(text.expose()).map_err(|_| IdentityError::Form)?;
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        let mut code = Zeroizing::new(String::with_capacity(text.len() + PREFIX.len()));
        lines.flat_map(str::chars).filter(char::is_ascii_alphanumeric).for_each(|c| code.push(c.to_ascii_uppercase()));
        let code = code.strip_prefix("AGESECRETKEY1").ok_or(IdentityError::Form)?;
        let mut whole = Zeroizing::new(String::with_capacity(code.len() + PREFIX.len()));
        whole.push_str(PREFIX);
        whole.push_str(code);
        whole.parse().map(Self).map_err(|_| IdentityError::Form)
    }

    /// Whom to encrypt to.
    pub fn recipient(&self) -> Recipient {
        Recipient(self.0.to_public())
    }

    /// The code to print once: the age identity in groups of eight.
    pub fn code(&self) -> Secret {
        let text = self.0.to_string();
        let body = text.expose_secret().trim_start_matches(PREFIX);
        let mut code = Vec::with_capacity(PREFIX.len() + 2 * body.len());
        code.extend_from_slice(PREFIX.as_bytes());
        for group in body.as_bytes().chunks(GROUP) {
            code.push(b' ');
            code.extend_from_slice(group);
        }
        Secret::new(code)
    }
}

const PREFIX: &str = "AGE-SECRET-KEY-1";
const GROUP: usize = 8;

pub(super) fn fresh_code() -> Result<(Recipient, Secret), RecipientError> {
    let identity = Identity::generate();
    Ok((identity.recipient(), identity.code()))
}

/// The age file.
pub(super) fn sealed(recipients: &[Recipient], plain: &Secret) -> Result<Vec<u8>, RecoveryError> {
    // The library draws by itself.
    #[cfg(test)]
    return crate::types::random::drawn::alike(plain.expose(), || sealed_by_library(recipients, plain));
    #[cfg(not(test))]
    sealed_by_library(recipients, plain)
}

fn sealed_by_library(recipients: &[Recipient], plain: &Secret) -> Result<Vec<u8>, RecoveryError> {
    let recipients = recipients.iter().map(|recipient| &recipient.0 as &dyn age::Recipient);
    let fail = |error: age::EncryptError| RecoveryError::Encrypt(std::io::Error::other(error));
    let encryptor = age::Encryptor::with_recipients(recipients).map_err(fail)?;
    let mut file = Vec::new();
    let mut writer = encryptor.wrap_output(&mut file).map_err(RecoveryError::Encrypt)?;
    writer.write_all(plain.expose()).map_err(RecoveryError::Encrypt)?;
    writer.finish().map_err(RecoveryError::Encrypt)?;
    Ok(file)
}

pub(super) fn opened(identity: &Identity, file: &[u8]) -> Result<Secret, RecoveryError> {
    let decryptor = age::Decryptor::new(file).map_err(|_| RecoveryError::Age)?;
    let mut reader =
        decryptor.decrypt([&identity.0 as &dyn age::Identity].into_iter()).map_err(|error| match error {
            age::DecryptError::NoMatchingKeys | age::DecryptError::DecryptionFailed => RecoveryError::Identity,
            _ => RecoveryError::Age,
        })?;
    // The plain text is shorter than the file: this never grows, and leaves no copy behind.
    let mut plain = Vec::with_capacity(file.len());
    let read = (&mut reader).take(file.len() as u64).read_to_end(&mut plain);
    let plain = Secret::new(plain);
    read.map_err(|_| RecoveryError::Age)?;
    Ok(plain)
}
