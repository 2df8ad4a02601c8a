//! What every provider must do (`conformance`), on real servers, and what each does besides. Servers are built once by
//! `make test` and kept in the user's cache; NODESEAL_SERVERS names the folder.
#![cfg(feature = "vault")]
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may panic and has no users"
)]

#[cfg(feature = "aws")]
mod aws;
mod conformance;
mod credentials;
mod proxy;
mod vault;
