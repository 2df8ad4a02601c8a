//! An attempt under way. One that is dropped because another one was faster, or because the time was over, has told that it takes at
//! least this long: if that counted for nothing, a provider that became slow would be asked first for ever, and one that hangs at all.

use tokio::time::Instant;

use super::health::Operation;
use super::{ATTEMPT, Member};
use crate::provider::{ErrorKind, ProviderError};

pub(super) struct Watched<'a> {
    member: &'a Member,
    operation: Operation,
    text: Option<u64>,
    started: Instant,
    ended: bool,
}

impl<'a> Watched<'a> {
    pub(super) fn new(member: &'a Member, operation: Operation, text: Option<u64>) -> Self {
        Self { member, operation, text, started: Instant::now(), ended: false }
    }

    /// It was not dropped before its end.
    pub(super) fn ended(&mut self) {
        self.ended = true;
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        if self.ended {
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
