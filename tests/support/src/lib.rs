//! What tests of several folders stand on: nodes, their clients, software TPMs, a proxy, and what the kernel says of a process.
//!
//! It knows nothing of the library `nodeseal`, and finds the programs where cargo has put them ([`process::built`]).
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may panic, has no users, and damages files on purpose"
)]

pub mod client;
pub mod node;
pub mod process;
pub mod proxy;
pub mod runtime;
pub mod scan;
pub mod swtpm;
