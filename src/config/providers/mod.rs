//! `[[provider]]`, `[write]` and `[decrypt]`, checked. Knows the file alone: whether a provider can be reached and does
//! what it should, is found out when it is opened.
//!
//! Each kind has a file of its own, with serde's mirror of its table, its check and what the rest of the file asks of
//! it (`OfKind`), and one row of `kinds`.

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "azure")]
mod azure;
mod check;
mod decrypt;
mod kinds;
mod kms_plugin;
#[cfg(feature = "pkcs11")]
mod pkcs11;
mod settings;
mod table;
#[cfg(feature = "vault")]
mod vault;
mod write;

pub(super) use check::{check, check_beside};
pub(super) use decrypt::Decrypt;
pub(super) use kinds::{AnyKind, any_provider};
pub use settings::{Provider, Providers, Settings};
pub(super) use write::Write;
