//! Attempts that go on beside each other in one task. They borrow what they need, and end with whoever waits for them: no task of their
//! own, no wake of another thread, and no copy of a key for each.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

/// Some attempts under way; a handful, so that all are looked at when one has moved.
pub(super) struct Beside<F>(Vec<Pin<Box<F>>>);

impl<F: Future> Beside<F> {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// It begins when it is next waited for.
    pub(super) fn push(&mut self, attempt: F) {
        self.0.push(Box::pin(attempt));
    }

    /// The first that ends, `None` if there is none. Giving up the wait stops none of them.
    pub(super) async fn next(&mut self) -> Option<F::Output> {
        poll_fn(|cx| {
            for at in 0..self.0.len() {
                if let Poll::Ready(answer) = self.0[at].as_mut().poll(cx) {
                    drop(self.0.swap_remove(at));
                    return Poll::Ready(Some(answer));
                }
            }
            if self.0.is_empty() { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{sleep, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_fastest_ends_first_and_a_wait_that_is_given_up_loses_nobody() {
        let mut beside = Beside::new();
        for millis in [300, 100, 200] {
            beside.push(async move {
                sleep(Duration::from_millis(millis)).await;
                millis
            });
        }
        assert!(timeout(Duration::from_millis(50), beside.next()).await.is_err());
        let mut order = Vec::new();
        while let Some(millis) = beside.next().await {
            order.push(millis);
        }
        assert_eq!(order, [100, 200, 300]);
        assert!(beside.is_empty());
    }
}
