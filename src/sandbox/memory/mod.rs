//! Keys that stay: in pages that no other process reads, also not as root by the ways that exist for it, wiped when dropped.
//!
//! The pages come from memfd_secret(2): the kernel takes them out of its own map of the memory, so that /proc/PID/mem, ptrace, a core
//! dump, swap and hibernation have no way to them. A kernel without it (before 5.14; 6.1 without `secretmem.enable=1`), or one that is
//! told to refuse it, gives locked pages instead, left out of core dumps. Where nothing can be locked (RLIMIT_MEMLOCK) the pages are
//! ordinary ones: the service goes on, since a reboot must always come back, and whoever takes a key in reports it ([`LockedKey::protection`]).
//!
//! All three kinds are kept from children: one that would touch them ends. Pages of zeros, which is what MADV_WIPEONFORK gives, would
//! be taken for a key. Many keys share a page, with a page before and after that nobody may touch.

mod slab;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::slab::LockedKey;

/// What keeps a page from others, the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protection {
    /// Left out of core dumps and of children. Could reach swap.
    Unlocked,
    /// Out of swap besides. Root reads it.
    Locked,
    /// By memfd_secret.
    Secret,
}

impl Protection {
    /// All, for who lists them.
    pub const ALL: [Self; 3] = [Self::Secret, Self::Locked, Self::Unlocked];

    /// In log, status and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Locked => "locked",
            Self::Unlocked => "unlocked",
        }
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// No page could be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot map a page for a key")]
pub struct MemoryError(#[source] std::io::Error);

/// Makes the first pages, so that what holds for them is known before there is a key.
pub fn reserve() -> Result<Protection, MemoryError> {
    slab::reserve()
}

/// What holds for the weakest page that has been made; `None` while there is none.
pub fn weakest() -> Option<Protection> {
    slab::weakest()
}
