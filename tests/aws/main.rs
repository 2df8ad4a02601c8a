//! The AWS provider against moto, an AWS that runs on this machine, and against a small server that lies as it is told.
//!
//! `moto` starts one server for each test, `ground` has what a provider stands on, `fake` answers one line for each operation.
#![cfg(feature = "aws")]
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may panic, has no users, and leaves files as a crash would"
)]

mod away;
mod canary;
mod environment;
mod fake;
mod ground;
mod keys;
mod lies;
mod logins;
mod moto;
