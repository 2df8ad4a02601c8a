//! Whether to ask a provider at all: after failures in a row it is left alone for a while, then tried by one call. Pure; the
//! time comes in, monotonic, from any fixed moment, and chance as a parameter.
//!
//! Only failures of the provider count ([`Class::Unavailable`], [`Class::Internal`]). A refusal of one login, key or text says that
//! it works. What it says of one text counts once, however often that text is asked for: some providers answer a text that does
//! not open as if they were broken. Throttling has a pause of its own, since a provider that limits us must be asked less and not
//! be given up.
//!
//! ```
//! use std::time::Duration;
//!
//! use nodeseal::provider::breaker::{Breaker, Failure, Pass};
//! use nodeseal::types::Class;
//!
//! let at = Duration::from_secs;
//! let away = Failure { class: Class::Unavailable, text: None, pause: None, chance: 0.0 };
//! let mut breaker = Breaker::default();
//! (0..5).for_each(|second| breaker.failed(away, at(second)));
//! // Five failures in a row: it is left alone for two seconds, then one call finds out, and the others wait for what comes of it.
//! assert_eq!(breaker.ask(at(5)), Pass::Wait(at(6)));
//! assert_eq!((breaker.ask(at(6)), breaker.ask(at(6))), (Pass::Trial, Pass::Wait(at(8))));
//! breaker.succeeded();
//! assert_eq!(breaker.ask(at(6)), Pass::Go);
//! ```

use std::time::Duration;

use crate::types::Class;

/// Failures in a row that open the circuit.
const FAILURES: usize = 5;
/// First and last time that it stays open.
const OPEN_MIN: Duration = Duration::from_secs(2);
const OPEN_MAX: Duration = Duration::from_secs(30);
/// First and last pause after the provider has limited us, where it does not say for how long itself.
const THROTTLED_MIN: Duration = Duration::from_millis(500);
const THROTTLED_MAX: Duration = Duration::from_secs(30);
/// A longer pause than this is not believed.
const TOLD_MAX: Duration = Duration::from_secs(300);

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

/// A call that was refused or not answered.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    /// What kind of failure.
    pub class: Class,
    /// Tells the text that was asked for from others, where the answer may be about that text.
    pub text: Option<u64>,
    /// The provider's own word on when to come back.
    pub pause: Option<Duration>,
    /// From 0 to 1: nodes that were limited together must not come back in step.
    pub chance: f64,
}

/// The circuit of one provider.
#[derive(Clone, Debug, Default)]
pub struct Breaker {
    failures: usize,
    /// Texts among these failures.
    texts: Vec<u64>,
    open: Option<Open>,
    throttled: Option<Throttled>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    until: Duration,
    span: Duration,
    /// A trial is under way, and is given up when it takes longer than this.
    trial_until: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Throttled {
    until: Duration,
    /// Before chance took its part.
    pause: Duration,
}

impl Breaker {
    /// Asks for one call.
    pub fn ask(&mut self, now: Duration) -> Pass {
        if let Some(throttled) = self.throttled.filter(|throttled| now < throttled.until) {
            return Pass::Wait(throttled.until);
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
    pub fn failed(&mut self, failure: Failure, now: Duration) {
        match failure.class {
            Class::Unavailable | Class::Internal => self.count(failure.text, now),
            Class::Throttled => self.throttle(failure, now),
            // It works, and says no.
            Class::Corrupt | Class::Denied | Class::Misconfigured | Class::NotFound => self.succeeded(),
        }
    }

    /// Whether calls are held back by failures.
    pub const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Failures in a row that say something of the provider.
    pub const fn failures(&self) -> usize {
        self.failures
    }

    fn count(&mut self, text: Option<u64>, now: Duration) {
        if let Some(text) = text {
            if self.texts.contains(&text) {
                // A trial has ended all the same.
                if let Some(open) = &mut self.open {
                    open.trial_until = None;
                }
                return;
            }
            if self.texts.len() < FAILURES {
                self.texts.push(text);
            }
        }
        self.failures = self.failures.saturating_add(1);
        let span = match self.open {
            Some(open) => (open.span * 2).min(OPEN_MAX),
            None if self.failures >= FAILURES => OPEN_MIN,
            None => return,
        };
        self.open = Some(Open { until: now + span, span, trial_until: None });
    }

    /// A provider that limits us is there: its circuit is closed.
    fn throttle(&mut self, failure: Failure, now: Duration) {
        let before = self.throttled.map_or(Duration::ZERO, |throttled| throttled.pause);
        // Several calls of the same moment are limited once.
        let is_same_moment = self.throttled.is_some_and(|throttled| now < throttled.until);
        let pause = if is_same_moment { before } else { (before * 2).clamp(THROTTLED_MIN, THROTTLED_MAX) };
        let rest = match failure.pause {
            // As long as it says, and up to a fifth more.
            Some(told) => told.min(TOLD_MAX).mul_f64(1.0 + failure.chance / 5.0),
            None => pause.mul_f64(0.5 + failure.chance / 2.0),
        };
        let until = self.throttled.map_or(Duration::ZERO, |throttled| throttled.until).max(now + rest);
        *self = Self { throttled: Some(Throttled { until, pause }), ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn failure(class: Class) -> Failure {
        Failure { class, text: None, pause: None, chance: 1.0 }
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..FAILURES {
            assert_eq!(breaker.ask(at(0)), Pass::Go);
            breaker.failed(failure(Class::Unavailable), at(0));
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
            breaker.failed(failure(Class::Unavailable), now);
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
                breaker.failed(failure(class), at(0));
            }
        }
        assert!(!breaker.is_open());
    }

    #[test]
    fn one_text_alone_never_opens_the_circuit_and_several_do() {
        let mut breaker = Breaker::default();
        let of = |text| Failure { text: Some(text), ..failure(Class::Unavailable) };
        for _ in 0..100 {
            breaker.failed(of(1), at(0));
        }
        assert_eq!((breaker.is_open(), breaker.failures()), (false, 1));
        (2..=FAILURES as u64).for_each(|text| breaker.failed(of(text), at(0)));
        assert!(breaker.is_open());
        // The same text as a trial says nothing new, and keeps nobody else from trying.
        assert_eq!(breaker.ask(at(2)), Pass::Trial);
        breaker.failed(of(1), at(2));
        assert_eq!(breaker.ask(at(2)), Pass::Trial);
    }

    #[test]
    fn a_provider_that_limits_us_is_asked_ever_more_slowly_and_as_late_as_it_says() {
        let mut breaker = Breaker::default();
        let mut now = Duration::ZERO;
        for pause in [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000].map(Duration::from_millis) {
            for _ in 0..3 {
                breaker.failed(failure(Class::Throttled), now);
            }
            assert_eq!(breaker.ask(now), Pass::Wait(now + pause));
            now += pause;
            assert_eq!(breaker.ask(now), Pass::Go);
        }
        breaker.succeeded();
        breaker.failed(Failure { pause: Some(at(7)), chance: 0.0, ..failure(Class::Throttled) }, now);
        assert_eq!(breaker.ask(now), Pass::Wait(now + at(7)));
        breaker.failed(Failure { pause: Some(at(1_000_000)), chance: 0.0, ..failure(Class::Throttled) }, now);
        assert_eq!(breaker.ask(now), Pass::Wait(now + TOLD_MAX));
    }

    #[test]
    fn a_provider_that_limits_a_trial_is_back() {
        let mut breaker = opened();
        assert_eq!(breaker.ask(at(2)), Pass::Trial);
        breaker.failed(failure(Class::Throttled), at(2));
        assert!(!breaker.is_open());
        assert_eq!(breaker.ask(at(3)), Pass::Go);
    }

    #[test]
    fn single_failures_between_successes_open_nothing() {
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            breaker.failed(failure(Class::Unavailable), at(0));
            breaker.succeeded();
        }
        assert_eq!(breaker.ask(at(0)), Pass::Go);
    }
}
