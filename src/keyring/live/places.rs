//! Places of calls that wait for providers: fewer than there are calls in flight, so that providers that hang keep no call from the keys of
//! this node. Whoever finds none is refused at once.

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::keyring::error::KeyringError;

/// Calls that wait for providers at once. Providers are asked sixteen calls at a time, so that more would wait for each other and not for
/// an answer.
pub const WAITING_MAX: usize = 384;

pub(super) struct Places(Semaphore);

impl Default for Places {
    fn default() -> Self {
        Self(Semaphore::new(WAITING_MAX))
    }
}

impl Places {
    /// Until the permit is dropped.
    pub(super) fn take(&self) -> Result<SemaphorePermit<'_>, KeyringError> {
        self.0.try_acquire().map_err(|_| KeyringError::Crowded)
    }
}

#[cfg(test)]
impl Places {
    pub(super) fn are_left(&self) -> bool {
        self.0.available_permits() > 0
    }
}
