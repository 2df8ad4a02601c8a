//! Where a provider gets what it logs in with. Who keeps credentials (sealed, on this node) is not the providers' business.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;

#[cfg(feature = "vault")]
use super::LoginTries;
#[cfg(feature = "http-client")]
use super::{ErrorKind, ProviderError};
use crate::types::{CredentialName, Secret};

/// Why a credential cannot be had. Must not show one.
pub type CredentialError = Box<dyn Error + Send + Sync>;

/// An answer of the store of credentials.
pub type CredentialAnswer<'a, T> = Pin<Box<dyn Future<Output = Result<T, CredentialError>> + Send + 'a>>;

/// Tells one sealing of a credential from every other one, and nothing of what was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark([u8; Self::BYTES]);

impl Mark {
    /// Of the nonce that a credential is sealed with.
    pub const BYTES: usize = 12;

    /// From its bytes.
    pub const fn new(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// Of what was fetched with what this sealing holds, for as long as it is not sealed itself. No sealing has it by any chance.
    #[cfg(feature = "vault")]
    pub(super) fn of_fetched(self) -> Self {
        Self(self.0.map(|byte| !byte))
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

/// Credentials by name. Asked anew at every login, so that one that was sealed again is used from the next login on.
pub trait Credentials: Send + Sync {
    /// The bytes that were sealed under this name, with what tells this sealing from the one before and the next.
    fn open<'a>(&'a self, name: &'a CredentialName) -> CredentialAnswer<'a, (Secret, Mark)>;

    /// What is known of those that a login may use up.
    #[cfg(feature = "vault")]
    fn tries(&self) -> &LoginTries;

    /// Seals other bytes under this name in place of this sealing, for logins whose credential is good for one use only. Refused where another
    /// one lies there by now, or none.
    fn replace<'a>(&'a self, name: &'a CredentialName, from: Mark, secret: &'a Secret) -> CredentialAnswer<'a, ()>;
}

/// What is sealed under this name, for a login.
#[cfg(feature = "http-client")]
pub(super) async fn opened(from: &dyn Credentials, name: &CredentialName) -> Result<(Secret, Mark), ProviderError> {
    from.open(name).await.map_err(|error| {
        ProviderError::new(ErrorKind::Credential, format!("credential {name} cannot be opened")).because(error)
    })
}
