//! What is tried once more, for nobody who waits: what has failed, and what has opened long ago.

use std::time::Duration;

use tokio::time::Instant;

use super::health::Operation;
use super::known::Opened;
use super::member::FAILING_TEXTS;
use super::{ANOTHER_KEY, ATTEMPT, BUDGET, COPY_BUDGET, Member, WrapContext};
use crate::provider::{ErrorKind, ProviderError, Wrapped};
use crate::types::{Class, Explained, Key};

/// After this a wrap that opened is opened again, so that a right that was lost is known before it is needed.
const OPENED_AGAIN: Duration = Duration::from_secs(24 * 3600);

impl Member {
    /// Within the time that it had when it failed: what is too slow for a text stays so. A failure is noted where it happens.
    pub(super) async fn try_again(&self) {
        if !self.writes() {
            // It wraps nothing any more, and what it refused when it did is nobody's trouble.
            self.tell_if_well(|known| known.troubles.forget(Operation::Wrap));
        }
        let (wrapped, unwrapped, foreign, is_old) = {
            let known = self.known();
            let wrapped = known.wrapped.clone().filter(|_| known.troubles.is_of(Operation::Wrap) && self.writes());
            let unwrapped = known.unwrapped.clone().filter(|_| known.troubles.is_of(Operation::Unwrap));
            let foreign = known.foreign.clone().filter(|_| known.troubles.is_of(Operation::Foreign));
            (
                wrapped,
                unwrapped,
                foreign,
                known.opened.as_ref().is_some_and(|opened| opened.at.elapsed() >= OPENED_AGAIN),
            )
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
        if let Some(text) = foreign {
            drop(self.open_foreign_text(&text, Instant::now() + BUDGET).await);
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

    /// Whether it is one text or the provider that has failed is found out before either is said: by what it has opened, and if that is
    /// nothing yet, by something that it wraps itself. Whoever has neither leaves the doubt to the next one.
    pub(super) async fn settle_doubt(&self, of: Option<&WrapContext>, end: Instant) {
        let of = of.filter(|_| self.writes());
        let (is_doubted, has_opened) = {
            let mut known = self.known();
            let has_opened = known.opened.is_some();
            let can_be_settled = has_opened || of.is_some();
            (can_be_settled && known.breaker.is_doubted(self.age()), has_opened)
        };
        match of {
            _ if !is_doubted => {}
            Some(of) if !has_opened => {
                if let Ok(key) = Key::random() {
                    let _ = self.wrap_and_prove(&key, of, ATTEMPT, end).await;
                }
            }
            Some(_) | None => self.open_again(end).await,
        }
    }

    /// It says of a text under the version that it tells that there is no such key: a plugin may not know better before it decrypts. Whether
    /// that is so is told by what it has opened.
    pub(super) async fn doubt_its_key(&self, wrapped: &Wrapped, error: &ProviderError, end: Instant) {
        let is_doubted = error.class() == Class::NotFound && self.known().is_to_be_doubted(wrapped);
        if is_doubted {
            self.open_again(end).await;
        }
    }

    /// While nothing tells whether the text or the provider is at fault, no text is asked for twice in one question: else each of them would
    /// take all of its time, and a place among the calls.
    pub(super) fn once_in_doubt(&self, error: ProviderError) -> ProviderError {
        let is_of_either =
            matches!(error.class(), Class::Unavailable | Class::Internal) && error.kind() != ErrorKind::Away;
        let known = self.known();
        let is_unsettled = known.opened.is_none() && known.breaker.failures() >= FAILING_TEXTS;
        if is_of_either && is_unsettled && error.not_before().is_none() { error.once() } else { error }
    }
}
