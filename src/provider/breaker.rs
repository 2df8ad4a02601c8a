//! Whether to ask a provider at all: after failures in a row it is left alone for a while, then tried by one call. Pure; the
//! time comes in, monotonic, from any fixed moment.
//!
//! Only failures of the provider count ([`Class::Unavailable`], [`Class::Internal`]). A refusal of one login, key or text says that
//! it works; throttling has a pause of its own, since a provider that limits us must be asked less and not be given up.

use std::time::Duration;

use crate::types::Class;

/// Failures in a row that open the circuit.
const FAILURES: u32 = 5;
/// First and last time that it stays open.
const OPEN_MIN: Duration = Duration::from_secs(2);
const OPEN_MAX: Duration = Duration::from_secs(30);
/// After the provider has limited us.
const THROTTLED: Duration = Duration::from_millis(500);

/// What a call may do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Go on.
    Go,
    /// Go on, as the one that finds out whether the provider is back.
    Trial,
    /// Not before this moment.
    Wait(Duration),
}

/// The circuit of one provider.
#[derive(Clone, Debug, Default)]
pub struct Breaker {
    failures: u32,
    open: Option<Open>,
    throttled_until: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    until: Duration,
    span: Duration,
    /// A trial is under way, and is given up when it takes longer than this.
    trial_until: Option<Duration>,
}

impl Breaker {
    /// Asks for one call.
    pub fn ask(&mut self, now: Duration) -> Pass {
        if now < self.throttled_until {
            return Pass::Wait(self.throttled_until);
        }
        let Some(open) = &mut self.open else { return Pass::Go };
        if now < open.until {
            return Pass::Wait(open.until);
        }
        match open.trial_until {
            Some(until) if now < until => Pass::Wait(until),
            Some(_) | None => {
                open.trial_until = Some(now + open.span);
                Pass::Trial
            }
        }
    }

    /// A call was answered.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// A call was refused or not answered.
    pub fn failed(&mut self, class: Class, now: Duration) {
        match class {
            Class::Unavailable | Class::Internal => self.count(now),
            Class::Throttled => self.throttled_until = now + THROTTLED,
            // It works, and says no.
            Class::Corrupt | Class::Denied | Class::Misconfigured | Class::NotFound => self.succeeded(),
        }
    }

    /// Whether calls are held back now.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    fn count(&mut self, now: Duration) {
        self.failures = self.failures.saturating_add(1);
        let span = match self.open {
            Some(open) => (open.span * 2).min(OPEN_MAX),
            None if self.failures >= FAILURES => OPEN_MIN,
            None => return,
        };
        self.open = Some(Open { until: now + span, span, trial_until: None });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..FAILURES {
            assert_eq!(breaker.ask(at(0)), Pass::Go);
            breaker.failed(Class::Unavailable, at(0));
        }
        breaker
    }

    #[test]
    fn after_failures_in_a_row_one_call_tries_and_its_success_closes_the_circuit() {
        let mut breaker = opened();
        assert_eq!(breaker.ask(at(1)), Pass::Wait(at(2)));
        assert_eq!(breaker.ask(at(2)), Pass::Trial);
        assert_eq!(breaker.ask(at(2)), Pass::Wait(at(4)), "one only");
        breaker.succeeded();
        assert_eq!(breaker.ask(at(2)), Pass::Go);
    }

    #[test]
    fn a_trial_that_fails_doubles_the_pause_up_to_a_bound_and_one_that_is_lost_blocks_nobody() {
        let mut breaker = opened();
        let mut now = at(2);
        for pause in [4, 8, 16, 30, 30] {
            assert_eq!(breaker.ask(now), Pass::Trial);
            breaker.failed(Class::Unavailable, now);
            assert_eq!(breaker.ask(now), Pass::Wait(now + at(pause)));
            now += at(pause);
        }
        assert_eq!(breaker.ask(now), Pass::Trial);
        assert_eq!(breaker.ask(now + OPEN_MAX), Pass::Trial, "the first trial was dropped without a word");
    }

    #[test]
    fn a_provider_that_says_no_is_not_away() {
        let mut breaker = Breaker::default();
        for class in [Class::Denied, Class::NotFound, Class::Corrupt, Class::Misconfigured] {
            for _ in 0..2 * FAILURES {
                breaker.failed(class, at(0));
            }
        }
        assert!(!breaker.is_open());
        breaker.failed(Class::Throttled, at(0));
        assert_eq!(breaker.ask(Duration::ZERO), Pass::Wait(THROTTLED));
        assert_eq!(breaker.ask(THROTTLED), Pass::Go);
    }

    #[test]
    fn single_failures_between_successes_open_nothing() {
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            breaker.failed(Class::Unavailable, at(0));
            breaker.succeeded();
        }
        assert_eq!(breaker.ask(at(0)), Pass::Go);
    }
}
