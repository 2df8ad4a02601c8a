//! Where a provider gets what it logs in with. Who keeps credentials (sealed, on this node) is not the providers' business.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;

use crate::types::Secret;

/// Why a credential cannot be had. Must not show one.
pub type CredentialError = Box<dyn Error + Send + Sync>;

/// An answer of the store of credentials.
pub type CredentialAnswer<'a, T> = Pin<Box<dyn Future<Output = Result<T, CredentialError>> + Send + 'a>>;

/// Credentials by name. Asked anew at every login, so that one that was sealed again is used from the next login on.
pub trait Credentials: Send + Sync {
    /// The bytes that were sealed under this name.
    fn open<'a>(&'a self, name: &'a str) -> CredentialAnswer<'a, Secret>;

    /// Seals other bytes under this name, for logins whose credential is good for one use only.
    fn replace<'a>(&'a self, name: &'a str, secret: &'a Secret) -> CredentialAnswer<'a, ()>;
}
