//! The TPM engine against real software TPMs, each test with one of its own.
#![cfg(feature = "tpm2")]
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may panic and has no users"
)]

mod busy;
mod counter;
mod displaced;
mod import;
mod interposed;
mod interposer;
mod keeps;
mod lockout;
mod pinned;
mod refuses;
mod states;
mod support;
mod swtpm;
mod wire;
