//! The TPM engine against real software TPMs, each test with one of its own.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may panic, has no users, and leaves files as a crash would"
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
mod wire;
#[cfg(not(feature = "recovery"))]
mod without_recovery;
