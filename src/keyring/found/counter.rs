//! Where the counter of a new root is made: never in the place of one that the old root needs until the new one counts.

use std::collections::BTreeSet;

use crate::keyring::error::KeeperError;
use crate::keyring::guard::{self, Stranger};
use crate::keyring::state_file::{Guard, LeftCounters};
use crate::types::{Class, Explained};

/// Where the counter of a new root is made.
pub(super) enum Counter {
    /// Where the configuration says.
    At(Stranger),
    /// There or at the neighbouring index, so that none of these is touched: until the new root counts, the old one must open as before.
    Beside(BTreeSet<u32>),
}

impl Counter {
    /// What is removed once the new root counts.
    pub(super) fn left(&self, index: Option<u32>, made: Option<Guard>) -> LeftCounters {
        let Self::Beside(known) = self else { return LeftCounters::new() };
        let mut left = known.clone();
        let made = made.map(|made| made.index);
        // It was taken, by a root whose state cannot be read.
        left.extend(index.filter(|_| made != index));
        left.retain(|index| Some(*index) != made);
        // They do not open under the new root.
        left.into_iter().map(|index| (index, None)).collect()
    }
}

/// At the first of the two indices that the old root does not use; where it cannot be asked, at one that is free.
pub(super) fn make_beside(
    index: u32,
    used: &BTreeSet<u32>,
    make: impl Fn(u32, Stranger) -> Result<Guard, KeeperError>,
) -> Result<Guard, KeeperError> {
    let both = [index, guard::other_index(index)];
    if !used.is_empty() {
        let free = both.into_iter().find(|index| !used.contains(index));
        // With both in use, one of them is left already and gives way.
        return make(free.unwrap_or(both[1]), Stranger::Replaced);
    }
    match make(index, Stranger::Refused) {
        Err(KeeperError::Device(error)) if error.class() != Class::Unavailable => make(both[1], Stranger::Replaced),
        made => made,
    }
}
