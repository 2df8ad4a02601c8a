//! What the machine and its operator are told: systemd's units, the SELinux module, the AppArmor profiles, the pages. Judged by the tools of each, without
//! running or loading anything.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may panic, has no users, and leaves files as a crash would"
)]

mod apparmor;
mod pages;
mod selinux;
mod units;
