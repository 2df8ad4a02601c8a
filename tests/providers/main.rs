//! What every provider must do (`conformance`), on real servers, and what each does besides. Servers are built once by
//! `make test` and kept in the user's cache; NODESEAL_SERVERS names the folder.
#![cfg(feature = "vault")]
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may panic, has no users, and damages files on purpose"
)]

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "azure")]
mod azure;
#[cfg(feature = "tpm2")]
#[path = "../service/client.rs"]
#[expect(dead_code, reason = "these tests need less of it than tests/service")]
mod client;
mod conformance;
mod credentials;
#[cfg(feature = "tpm2")]
#[path = "../service/node.rs"]
#[expect(dead_code, reason = "these tests need less of it than tests/service")]
mod node;
#[cfg(feature = "tpm2")]
#[path = "../service/process.rs"]
#[expect(dead_code, reason = "these tests need less of it than tests/service")]
mod process;
mod proxy;
#[cfg(feature = "tpm2")]
mod rooted;
mod vault;
