//! What every provider must do (`conformance`), on real servers, and what each does besides. Servers are built once by
//! `make test` and kept in the user's cache; NODESEAL_SERVERS names the folder.
//!
//! They wait for probes, logins and servers most of the time.
//!
//! Threads: 2 for each processor.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may panic, has no users, and damages files on purpose"
)]
#![cfg_attr(
    not(all(feature = "aws", feature = "azure", feature = "pkcs11", feature = "tpm2", feature = "vault")),
    allow(
        dead_code,
        unused_imports,
        unused_macros,
        reason = "a build with fewer providers needs less of what they share"
    )
)]

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "azure")]
mod azure;
mod conformance;
mod credentials;
mod dev;
mod front;
#[cfg(feature = "tpm2")]
mod kms_plugin;
#[cfg(feature = "pkcs11")]
mod pkcs11;
#[cfg(all(feature = "tpm2", feature = "vault"))]
mod rooted;
#[cfg(any(feature = "aws", feature = "vault"))]
mod setup;
#[cfg(feature = "http-client")]
mod tls_front;
#[cfg(feature = "vault")]
mod vault;
#[cfg(all(feature = "tpm2", feature = "pkcs11"))]
mod wired;
