//! The real programs over a real software TPM: what kube-apiserver, an operator, a stranger and a failing machine see.
//!
//! [`test_support::node`] runs everything as `nodeseal dev` does, `alone` runs `nodeseald` without a supervisor,
//! [`test_support::client`] is a KMS client of our own (its messages are written by hand, so that a mistake in the generated ones
//! is noticed), `raw` speaks HTTP/2 byte by byte.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may panic, has no users, and damages files on purpose"
)]

mod advice;
mod alone;
mod canary;
mod chosen;
mod cli;
mod collected;
mod consent;
mod contract;
mod control;
mod credentials;
mod debug;
mod doctor;
mod flash;
mod floods;
mod hostile;
mod hung;
mod impatient;
mod journal;
mod json;
mod keys;
mod memory;
mod metrics;
mod monitor;
mod needs;
mod next;
mod peers;
mod raw;
mod reboot;
mod releases;
mod reload;
mod sandbox;
mod seal;
mod setup;
mod sockets;
mod tells;
mod threads;
#[cfg(feature = "pkcs11")]
mod token;
mod torture;
mod typed;
mod unread;
mod walks;
