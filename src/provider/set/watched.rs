//! An attempt under way. One that is dropped because another one was faster, or because the time was over, has told that it takes at
//! least this long: if that counted for nothing, a provider that became slow would be asked first for ever, and one that hangs at all. Each is
//! measured, however it ends.

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
    started: Instant,
    ended: Option<Asked>,
}

impl<'a> Watched<'a> {
    pub(super) fn new(member: &'a Member, operation: Operation, text: Option<u64>) -> Self {
        Self { member, operation, text, started: Instant::now(), ended: None }
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
        if took >= ATTEMPT {
            self.member.failed(self.text, &late());
            self.member.note_failure(self.operation, self.text, &late());
        }
    }
}

pub(super) fn late() -> ProviderError {
    ProviderError::new(ErrorKind::Away, "no answer in time")
}
