//! An attempt under way. One that is dropped because another one was faster, or because the time was over, has told that it takes at
//! least this long: if that counted for nothing, a provider that became slow would be asked first for ever, and one that hangs at all. Each is
//! measured, however it ends. But it is no failure while the same question, asked of the same provider beside it, was answered.

use tokio::time::Instant;

use super::health::Operation;
use super::{ATTEMPT, Member};
use crate::provider::{ErrorKind, ProviderError};
use crate::telemetry::{PROVIDERS, WELL};
use crate::types::Explained;

/// The class of what nobody waited for any more.
const GIVEN_UP: &str = "given_up";

/// Whom an attempt that has ended has asked.
#[derive(Clone, Copy)]
enum Asked {
    /// With this class.
    Somebody(&'static str),
    /// In the pause after a login that failed.
    Nobody,
}

pub(super) struct Watched<'a> {
    member: &'a Member,
    operation: Operation,
    text: Option<u64>,
    number: u64,
    started: Instant,
    ended: Option<Asked>,
}

/// The attempts of one provider that have not ended: as many as its cap on calls allows.
#[derive(Default)]
pub(super) struct UnderWay {
    next: u64,
    attempts: Vec<Attempt>,
}

struct Attempt {
    number: u64,
    operation: Operation,
    text: Option<u64>,
    is_overtaken: bool,
}

impl UnderWay {
    fn begin(&mut self, operation: Operation, text: Option<u64>) -> u64 {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.attempts.push(Attempt { number, operation, text, is_overtaken: false });
        number
    }

    /// The provider has done this.
    pub(super) fn succeeded(&mut self, operation: Operation, text: Option<u64>) {
        let same = |attempt: &&mut Attempt| (attempt.operation, attempt.text) == (operation, text);
        self.attempts.iter_mut().filter(same).for_each(|attempt| attempt.is_overtaken = true);
    }

    /// Whether it was overtaken.
    fn end(&mut self, number: u64) -> bool {
        let place = self.attempts.iter().position(|attempt| attempt.number == number);
        place.is_some_and(|place| self.attempts.swap_remove(place).is_overtaken)
    }
}

impl<'a> Watched<'a> {
    pub(super) fn new(member: &'a Member, operation: Operation, text: Option<u64>) -> Self {
        let number = member.known().under_way.begin(operation, text);
        Self { member, operation, text, number, started: Instant::now(), ended: None }
    }

    /// It was not dropped before its end.
    pub(super) fn ended<T>(&mut self, answer: &Result<T, ProviderError>) {
        self.ended = Some(match answer {
            Ok(_) => Asked::Somebody(WELL),
            Err(error) if error.not_before().is_some() => Asked::Nobody,
            Err(error) => Asked::Somebody(error.class().label()),
        });
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        let is_overtaken = self.member.known().under_way.end(self.number);
        let class = match self.ended {
            None => GIVEN_UP,
            Some(Asked::Somebody(class)) => class,
            Some(Asked::Nobody) => return,
        };
        PROVIDERS.note(self.member.name(), self.operation.label(), class, took);
        if self.ended.is_some() {
            return;
        }
        // A shorter time says nothing: it might have been the fastest answer ever.
        if took > self.member.usual() {
            self.member.known().pace.remember(took);
        }
        if took >= ATTEMPT && !is_overtaken {
            self.member.failed(self.text, &late());
            self.member.note_failure(self.operation, self.text, &late());
        }
    }
}

pub(super) fn late() -> ProviderError {
    ProviderError::new(ErrorKind::Away, "no answer in time")
}
