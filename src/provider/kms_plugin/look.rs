//! The look at a path, by a thread that may be blocked: one at a time, so that a file system that hangs takes one thread, and not all
//! that the providers share.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::provider::{ErrorKind, ProviderError};

/// The looks of one provider.
pub(super) struct Looks(Arc<Semaphore>);

impl Looks {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }

    /// Whoever gives up leaves the thread to it, and the next one waits for that.
    pub(super) async fn take<T: Send + 'static>(
        &self,
        look: impl FnOnce() -> Result<T, ProviderError> + Send + 'static,
    ) -> Result<T, ProviderError> {
        let lost = || ProviderError::new(ErrorKind::Away, "the look at the socket was lost");
        let permit = Arc::clone(&self.0).acquire_owned().await.map_err(|_| lost())?;
        let looked = tokio::task::spawn_blocking(move || {
            let _one_at_a_time = permit;
            look()
        });
        looked.await.map_err(|error| lost().because(error))?
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_path_that_hangs_holds_up_its_own_calls_alone_and_takes_one_thread() {
        static BEGUN: AtomicU32 = AtomicU32::new(0);
        let (release, hangs) = channel::<()>();
        let looks = Looks::new();
        let first = looks.take(move || {
            BEGUN.fetch_add(1, Ordering::SeqCst);
            let _ = hangs.recv();
            Ok(())
        });
        // This thread, which polls all providers, comes to the end of each timeout.
        assert!(timeout(Duration::from_millis(20), first).await.is_err());
        for _ in 0..3 {
            let next = looks.take(|| Ok(BEGUN.fetch_add(1, Ordering::SeqCst)));
            assert!(timeout(Duration::from_millis(20), next).await.is_err());
        }
        assert_eq!(BEGUN.load(Ordering::SeqCst), 1);
        drop(release);
        assert_eq!(looks.take(|| Ok(7)).await.unwrap(), 7);
    }
}
