//! When something that failed is tried again: a pause that doubles up to a bound. The time is passed in.

use std::time::{Duration, Instant};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    /// The moment of the next attempt, and the pause before it.
    waits: Option<(Instant, Duration)>,
}

impl Backoff {
    pub(super) const fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, waits: None }
    }

    /// Whether an attempt may be made.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.waits.is_none_or(|(at, _)| now >= at)
    }

    /// The attempt has failed. Gives the pause until the next one.
    pub(super) fn failed(&mut self, now: Instant) -> Duration {
        let pause = self.waits.map_or(self.min, |(_, pause)| (pause * 2).min(self.max));
        self.waits = Some((now + pause, pause));
        pause
    }

    /// Nothing before `now + pause`, without a failure.
    pub(super) fn rest(&mut self, now: Instant, pause: Duration) {
        self.waits = Some((now + pause, self.min));
    }

    /// The next failure is the first one again.
    pub(super) fn reset(&mut self) {
        self.waits = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_up_to_its_bound_and_a_success_ends_it() {
        let (second, now) = (Duration::from_secs(1), Instant::now());
        let mut backoff = Backoff::new(second, 3 * second);
        assert!(backoff.is_due(now));
        assert_eq!([backoff.failed(now), backoff.failed(now), backoff.failed(now)], [second, 2 * second, 3 * second]);
        assert!(!backoff.is_due(now + 2 * second) && backoff.is_due(now + 3 * second));
        backoff.reset();
        assert!(backoff.is_due(now));
        assert_eq!(backoff.failed(now), second);
    }
}
