//! What one provider reads of the file system, by a thread that may be blocked: one at a time, so that a file system that hangs takes
//! one thread, and neither the one that polls all providers nor all that they share.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::{ErrorKind, ProviderError};

/// Of one provider.
pub(super) struct Reads(Arc<Semaphore>);

impl Reads {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }

    /// Whoever gives up leaves the thread to its read, and the next one waits for that.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, ProviderError> + Send + 'static,
    ) -> Result<T, ProviderError> {
        let lost = || ProviderError::new(ErrorKind::Away, "reading a file was given up");
        let permit = Arc::clone(&self.0).acquire_owned().await.map_err(|_| lost())?;
        let done = tokio::task::spawn_blocking(move || {
            let _one_at_a_time = permit;
            read()
        });
        done.await.map_err(|error| lost().because(error))?
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
        let reads = Reads::new();
        let first = reads.run(move || {
            BEGUN.fetch_add(1, Ordering::SeqCst);
            let _ = hangs.recv();
            Ok(())
        });
        // This thread, which polls all providers, comes to the end of each timeout.
        assert!(timeout(Duration::from_millis(20), first).await.is_err());
        for _ in 0..3 {
            let next = reads.run(|| Ok(BEGUN.fetch_add(1, Ordering::SeqCst)));
            assert!(timeout(Duration::from_millis(20), next).await.is_err());
        }
        assert_eq!(BEGUN.load(Ordering::SeqCst), 1);
        drop(release);
        assert_eq!(reads.run(|| Ok(7)).await.unwrap(), 7);
    }
}
