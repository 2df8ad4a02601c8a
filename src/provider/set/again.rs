//! What is tried once more, for nobody who waits: what has failed, and what has opened long ago.

use std::time::Duration;

use tokio::time::Instant;

use super::health::Operation;
use super::known::Opened;
use super::{ANOTHER_KEY, BUDGET, COPY_BUDGET, Member};
use crate::types::{Explained, Key};

/// After this a wrap that opened is opened again, so that a right that was lost is known before it is needed.
const OPENED_AGAIN: Duration = Duration::from_secs(24 * 3600);

impl Member {
    /// Within the time that it had when it failed: what is too slow for a text stays so. A failure is noted where it happens.
    pub(super) async fn try_again(&self) {
        if !self.writes() {
            // It wraps nothing any more, and what it refused when it did is nobody's trouble.
            self.tell_if_well(|known| known.troubles.forget(Operation::Wrap));
        }
        let (wrapped, unwrapped, is_old) = {
            let known = self.known();
            let wrapped = known.wrapped.clone().filter(|_| known.troubles.is_of(Operation::Wrap) && self.writes());
            let unwrapped = known.unwrapped.clone().filter(|_| known.troubles.is_of(Operation::Unwrap));
            (wrapped, unwrapped, known.opened.as_ref().is_some_and(|opened| opened.at.elapsed() >= OPENED_AGAIN))
        };
        if let Some((of, call)) = wrapped
            && let Ok(key) = Key::random()
        {
            let budget = if call > BUDGET { COPY_BUDGET } else { BUDGET };
            let _ = self.wrap_and_prove(&key, &of, call, Instant::now() + budget).await;
        }
        match unwrapped {
            Some((wrap, of)) => drop(self.unwrap(&wrap, &of, Instant::now() + BUDGET).await),
            None if is_old => self.open_again(Instant::now() + BUDGET).await,
            None => {}
        }
    }

    /// The last wrap that it has opened, if there is one, past an open circuit. What comes of it says something of the provider and of no
    /// text, since this one is in order.
    async fn open_again(&self, end: Instant) {
        let opened = self.known().opened.clone();
        let Some(Opened { wrap, of, key, .. }) = opened else { return };
        match self.opens(&wrap, &of, None, end).await {
            Ok(opened) if key.is_of(&opened) => {
                self.went_well(Operation::Unwrap, |known| known.opens_again(&wrap, &opened));
            }
            Ok(_) => drop(self.lied(ANOTHER_KEY)),
            Err(error) => {
                self.known().does_not_open(&wrap, &of, error.class());
                self.note_failure(Operation::Unwrap, None, &error);
            }
        }
    }

    /// Whether it is one text or the provider that has failed is found out before either is said.
    pub(super) async fn settle_doubt(&self, end: Instant) {
        let is_doubted = self.known().breaker.is_doubted(self.age());
        if is_doubted {
            self.open_again(end).await;
        }
    }
}
