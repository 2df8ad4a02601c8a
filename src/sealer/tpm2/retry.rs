//! Bounded retries: of what the TPM asks to be asked again, and once of a broken connection.
//!
//! An attempt owns everything it used (context, sessions, objects), so that the next one starts from nothing: a policy session
//! that met TPM_RC_PCR_CHANGED cannot be mended (systemd issue 31881).

use std::time::{Duration, Instant};

use super::fault::{Failure, Prospect};
use crate::seal::fault::Fault;

/// How long one operation may go on asking.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// Attempts in all.
    pub(super) tries: u32,
    /// From the first attempt to the last pause.
    pub(super) total: Duration,
    /// Pause after the first attempt, doubled from there on.
    pub(super) pause: Duration,
    /// The longest pause.
    pub(super) pause_max: Duration,
}

impl Budget {
    /// 30 tries as systemd has (RETRY_UNSEAL_MAX), pauses of 20 ms·2^n up to 320 ms: 8.6 s of pauses, inside of 10 s in all.
    pub(super) const OPERATION: Self = Self {
        tries: 30,
        total: Duration::from_secs(10),
        pause: Duration::from_millis(20),
        pause_max: Duration::from_millis(320),
    };
}

/// Time, passed in so that the tests need none.
pub(super) trait Clock {
    /// Since some fixed moment.
    fn now(&self) -> Duration;
    /// Waits.
    fn pause(&mut self, span: Duration);
}

/// The machine's monotonic clock.
pub(super) struct Monotonic(Instant);

impl Monotonic {
    /// Starts at zero.
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for Monotonic {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn pause(&mut self, span: Duration) {
        std::thread::sleep(span);
    }
}

/// What is left of a budget. One covers all of an operation, also where that has two halves.
pub(super) struct Retry<C> {
    clock: C,
    tries_left: u32,
    deadline: Duration,
    pause: Duration,
    pause_max: Duration,
    reconnected: bool,
}

impl<C: Clock> Retry<C> {
    /// Starts now.
    pub(super) fn new(budget: Budget, clock: C) -> Self {
        let Budget { tries, total, pause, pause_max } = budget;
        let deadline = clock.now() + total;
        Self { clock, tries_left: tries, deadline, pause, pause_max, reconnected: false }
    }

    /// Attempts until it succeeds, cannot succeed, or the budget is used up; then the last failure is the fault.
    pub(super) fn run<T>(&mut self, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T, Fault> {
        loop {
            self.tries_left = self.tries_left.saturating_sub(1);
            let failure = match attempt() {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            let again = match failure.prospect() {
                Prospect::None => false,
                Prospect::Reconnect => !std::mem::replace(&mut self.reconnected, true) && self.tries_left > 0,
                Prospect::Wait => self.wait(),
            };
            if !again {
                return Err(failure.into_fault());
            }
        }
    }

    /// `false` if nothing is left to wait for.
    fn wait(&mut self) -> bool {
        if self.tries_left == 0 || self.clock.now() + self.pause > self.deadline {
            return false;
        }
        self.clock.pause(self.pause);
        self.pause = (self.pause * 2).min(self.pause_max);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::fault::{Rc, Step};
    use super::*;
    use crate::seal::fault::FaultCode;

    /// Stands still but for the pauses and what an attempt takes.
    #[derive(Default)]
    struct Fake {
        now: Duration,
        pauses: Vec<u128>,
    }

    impl Clock for &mut Fake {
        fn now(&self) -> Duration {
            self.now
        }

        fn pause(&mut self, span: Duration) {
            self.now += span;
            self.pauses.push(span.as_millis());
        }
    }

    fn answer(rc: u32) -> Failure {
        Failure::Answer { step: Step::Unseal, rc: Some(Rc(rc)) }
    }

    /// Fails `count` times with `rc`: how many attempts were made, and the end.
    fn fail(clock: &mut Fake, count: u32, rc: u32) -> (u32, Result<(), FaultCode>) {
        let mut made = 0;
        let result = Retry::new(Budget::OPERATION, clock).run(|| {
            made += 1;
            if made <= count { Err(answer(rc)) } else { Ok(()) }
        });
        (made, result.map_err(|fault| fault.code))
    }

    #[test]
    fn passing_codes_are_tried_again_and_the_rest_is_final() {
        for rc in [0x922, 0x908, 0x90A, 0x920, 0x902, 0x903, 0x901, 0x128, 0xB_0902] {
            assert_eq!(fail(&mut Fake::default(), 3, rc), (4, Ok(())), "{rc:#x}");
        }
        for rc in [0x921, 0x101, 0x100, 0x99D, 0x9A2, 0x1DF, 0x7_001B, 0xA_0001] {
            assert_eq!(fail(&mut Fake::default(), 3, rc).0, 1, "{rc:#x}");
        }
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_end_within_ten_seconds() {
        let mut clock = Fake::default();
        assert_eq!(fail(&mut clock, u32::MAX, 0x922), (30, Err(FaultCode::Busy)));
        assert_eq!(clock.pauses[..6], [20, 40, 80, 160, 320, 320]);
        assert!(clock.now < Duration::from_secs(10));
        assert_eq!(fail(&mut Fake::default(), u32::MAX, 0x128), (30, Err(FaultCode::PcrRace)));
    }

    #[test]
    fn slow_attempts_use_up_the_time_before_the_tries() {
        let mut clock = Fake { now: Duration::ZERO, ..Fake::default() };
        let mut retry = Retry::new(Budget { total: Duration::from_millis(100), ..Budget::OPERATION }, &mut clock);
        let mut made = 0;
        let fault = retry.run::<()>(|| {
            made += 1;
            Err(answer(0x902))
        });
        assert_eq!((made, fault.unwrap_err().code), (3, FaultCode::Busy));
    }

    #[test]
    fn a_broken_connection_is_opened_once_more() {
        assert_eq!(fail(&mut Fake::default(), 1, 0xA_000A), (2, Ok(())));
        assert_eq!(fail(&mut Fake::default(), 2, 0xA_000A), (2, Err(FaultCode::NoDevice)));
    }
}
