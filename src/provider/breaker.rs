//! Whether to ask a provider at all: after failures in a row it is left alone for a while, then tried by one call. Pure; the
//! time comes in, monotonic, from any fixed moment, and chance as a parameter.
//!
//! Only failures of the provider count ([`Class::Unavailable`], [`Class::Internal`]). A refusal of one login, key or text says that
//! it works. Some providers answer a text that does not open as if they were broken: so failures of texts open no circuit, however many
//! they are. They raise a doubt ([`Breaker::is_doubted`]), and what settles it is asked for apart from any text in doubt.
//!
//! Throttling has a pause of its own, since a provider that limits us must be asked less and not be given up. It is kept whatever
//! else the provider answers meanwhile, until it has done again what it was limited for ([`Breaker::served`]).
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
/// Texts that fail in a row, before it is doubted that each of them is at fault itself.
const TEXTS: usize = 2;
/// For so long whoever settles a doubt may take.
const DOUBT: Duration = Duration::from_secs(2);
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
    circuit: Circuit,
    throttled: Option<Throttled>,
}

/// What failures do.
#[derive(Clone, Debug, Default)]
struct Circuit {
    /// In a row, and of no text.
    failures: usize,
    /// Texts that have failed since something went well.
    texts: Vec<u64>,
    /// One of them has failed since the last doubt, which somebody may be about to settle until this moment.
    doubt: Option<Duration>,
    open: Option<Open>,
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
        let Some(open) = &mut self.circuit.open else { return Pass::Go };
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

    /// A call was answered. That ends no pause that the provider has asked for.
    pub fn succeeded(&mut self) {
        self.circuit = Circuit::default();
    }

    /// It has wrapped or opened something, which was begun then: where that was after the pause, it limits us no more.
    pub fn served(&mut self, begun: Duration) {
        self.succeeded();
        self.throttled.take_if(|throttled| begun >= throttled.until);
    }

    /// A call was refused or not answered.
    pub fn failed(&mut self, failure: Failure, now: Duration) {
        match (failure.class, failure.text) {
            (Class::Unavailable | Class::Internal, None) => self.count(now),
            (Class::Unavailable | Class::Internal, Some(text)) => self.circuit.note(text),
            (Class::Throttled, _) => self.throttle(failure, now),
            // It works, and says no.
            (Class::Corrupt | Class::Denied | Class::Misconfigured | Class::NotFound, _) => self.succeeded(),
        }
    }

    /// Whether calls are held back by failures.
    pub const fn is_open(&self) -> bool {
        self.circuit.open.is_some()
    }

    /// Whether calls are held back because the provider limits us, whatever fails meanwhile.
    pub fn is_limited(&self, now: Duration) -> bool {
        self.throttled.is_some_and(|throttled| now < throttled.until)
    }

    /// Failures in a row, of which those of one text are one.
    pub const fn failures(&self) -> usize {
        self.circuit.failures + self.circuit.texts.len()
    }

    /// Whether to find out now if it is the texts or the provider: by something that does not hang on a text in doubt, and counts as a
    /// failure of no text. Said to one asker at a time.
    pub fn is_doubted(&mut self, now: Duration) -> bool {
        let Circuit { texts, doubt, open, .. } = &mut self.circuit;
        let is_time = doubt.is_some_and(|until| now >= until) && (open.is_some() || texts.len() >= TEXTS);
        if is_time {
            *doubt = Some(now + DOUBT);
        }
        is_time
    }

    fn count(&mut self, now: Duration) {
        let Circuit { failures, doubt, open, .. } = &mut self.circuit;
        *failures = failures.saturating_add(1);
        *doubt = None;
        let span = match open {
            Some(open) => (open.span * 2).min(OPEN_MAX),
            None if *failures >= FAILURES => OPEN_MIN,
            None => return,
        };
        *open = Some(Open { until: now + span, span, trial_until: None });
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
        *self = Self { circuit: Circuit::default(), throttled: Some(Throttled { until, pause }) };
    }
}

impl Circuit {
    fn note(&mut self, text: u64) {
        if !self.texts.contains(&text) && self.texts.len() < FAILURES {
            self.texts.push(text);
        }
        self.doubt.get_or_insert(Duration::ZERO);
        // A trial has ended, and has said nothing.
        if let Some(open) = &mut self.open {
            open.trial_until = None;
        }
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
    fn texts_never_open_the_circuit_and_raise_a_doubt_that_one_asker_settles_at_a_time() {
        let mut breaker = Breaker::default();
        let of = |text| Failure { text: Some(text), ..failure(Class::Unavailable) };
        for _ in 0..100 {
            breaker.failed(of(1), at(0));
            assert!(!breaker.is_doubted(at(0)), "it is one text");
        }
        assert_eq!((breaker.is_open(), breaker.failures()), (false, 1));
        (2..=100).for_each(|text| breaker.failed(of(text), at(0)));
        assert!(breaker.is_doubted(at(0)) && !breaker.is_doubted(at(1)));
        assert!(breaker.is_doubted(at(2)), "whoever was to settle it was dropped");
        // It was the texts.
        breaker.succeeded();
        assert_eq!((breaker.is_doubted(at(9)), breaker.failures()), (false, 0));
        // It is the provider.
        for text in 1..=FAILURES as u64 {
            assert!(!breaker.is_open());
            breaker.failed(of(0), at(9));
            breaker.failed(of(text), at(9));
            assert!(breaker.is_doubted(at(9)));
            breaker.failed(failure(Class::Unavailable), at(9));
        }
        assert!(breaker.is_open());
        // A text as a trial says nothing, and keeps nobody else from trying.
        assert_eq!(breaker.ask(at(11)), Pass::Trial);
        breaker.failed(of(1), at(11));
        assert_eq!(breaker.ask(at(11)), Pass::Trial);
        assert!(breaker.is_doubted(at(11)));
    }

    #[test]
    fn a_pause_that_was_asked_for_is_kept_until_something_that_was_begun_after_it_goes_well() {
        let mut breaker = Breaker::default();
        breaker.failed(Failure { pause: Some(at(60)), chance: 0.0, ..failure(Class::Throttled) }, at(0));
        breaker.succeeded();
        breaker.failed(failure(Class::Denied), at(1));
        breaker.served(at(0));
        assert_eq!(breaker.ask(at(2)), Pass::Wait(at(60)));
        let told = |breaker: &Breaker| breaker.throttled.map(|throttled| throttled.pause);
        breaker.succeeded();
        assert_eq!(told(&breaker), Some(THROTTLED_MIN), "it is only known to be there");
        breaker.served(at(60));
        assert_eq!((told(&breaker), breaker.ask(at(60))), (None, Pass::Go));
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
