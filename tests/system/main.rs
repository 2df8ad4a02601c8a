//! What the machine and its operator are told: systemd's units, the SELinux module, the AppArmor profiles, the pages. Judged by the tools of each, without
//! running or loading anything.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may panic and has no users"
)]

mod apparmor;
mod pages;
mod selinux;
mod units;
