//! What the keeper still has to do by itself, and who has the device and the providers at this moment. Pure: no threads, no clock.
//!
//! An errand leaves the list only when it is done or is not wanted any more. Whatever fails, or is cut short, stays and is tried
//! again after its pause. There is one question to the device at a time and one to the providers; an operator's question waits for
//! the end of an errand, and is refused while another operator's is under way.

use std::time::{Duration, Instant};

use super::backoff::Backoff;

/// What the keeper does without having been asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Errand {
    /// Open the root and throw the result away; look at every file.
    Check,
    /// A copy of a KEK that a provider owes.
    Copies,
    /// Let the counter of the guard follow the state.
    Count,
    /// Another key_id.
    KeyId,
    /// Sealed copies of other nodes' KEKs.
    Keep,
    /// The recovery file, which the state says should be another one.
    RecoveryFile,
    /// Remove a counter that guards nothing any more.
    RemoveCounter,
    /// A rotation that is due.
    Rotate,
    /// The state, in both generations.
    State,
}

impl Errand {
    /// First and last pause after a failure.
    const fn pauses(self) -> (Duration, Duration) {
        const fn pauses(min: u64, max: u64) -> (Duration, Duration) {
            (Duration::from_millis(min), Duration::from_millis(max))
        }
        // A test that lets something fail once does not wait for seconds.
        let quick = if cfg!(test) { 20 } else { 5_000 };
        match self {
            Self::Check => pauses(600_000, 3_600_000),
            Self::Copies => pauses(quick, 60_000),
            Self::KeyId => pauses(quick, 300_000),
            Self::Count | Self::RecoveryFile | Self::RemoveCounter | Self::Keep | Self::State => {
                pauses(if cfg!(test) { 20 } else { 60_000 }, 600_000)
            }
            Self::Rotate => pauses(60_000, 3_600_000),
        }
    }
}

/// What can be asked one thing at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// The sealing device.
    Device,
    /// The providers.
    Providers,
}

/// Who has a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    Errand(Errand),
    Operator,
}

/// Why a slot is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// By an errand: wait for its end.
    ByErrand,
    /// By another operator.
    ByOperator,
}

/// See the module. `Q` is an operator's question that waits.
pub(super) struct Errands<Q> {
    wanted: Vec<(Errand, Backoff)>,
    device: Option<Holder>,
    providers: Option<Holder>,
    queue: Vec<Q>,
}

impl<Q> Errands<Q> {
    pub(super) const fn new() -> Self {
        Self { wanted: Vec::new(), device: None, providers: None, queue: Vec::new() }
    }

    /// To be done, now or after its pause.
    pub(super) fn want(&mut self, errand: Errand) {
        if !self.is_wanted(errand) {
            let (min, max) = errand.pauses();
            self.wanted.push((errand, Backoff::new(min, max)));
        }
    }

    /// Wanted or not, as the state of things says. What is not wanted any more forgets its pause.
    pub(super) fn want_if(&mut self, errand: Errand, is: bool) {
        if is { self.want(errand) } else { self.done(errand) }
    }

    pub(super) fn is_wanted(&self, errand: Errand) -> bool {
        self.wanted.iter().any(|(wanted, _)| *wanted == errand)
    }

    /// Wanted, its pause is over, and it is not under way.
    pub(super) fn is_due(&self, errand: Errand, now: Instant) -> bool {
        let is_running = [self.device, self.providers].contains(&Some(Holder::Errand(errand)));
        !is_running && self.wanted.iter().any(|(wanted, backoff)| *wanted == errand && backoff.is_due(now))
    }

    /// Tried, and to be tried again.
    pub(super) fn failed(&mut self, errand: Errand, now: Instant) {
        self.want(errand);
        if let Some((_, backoff)) = self.wanted.iter_mut().find(|(wanted, _)| *wanted == errand) {
            backoff.failed(now);
        }
    }

    /// Not before this pause is over, although nothing has failed.
    pub(super) fn rest(&mut self, errand: Errand, now: Instant, pause: Duration) {
        self.want(errand);
        if let Some((_, backoff)) = self.wanted.iter_mut().find(|(wanted, _)| *wanted == errand) {
            backoff.rest(now, pause);
        }
    }

    /// Its next pause is the first one again.
    pub(super) fn hurry(&mut self, errand: Errand) {
        if let Some((_, backoff)) = self.wanted.iter_mut().find(|(wanted, _)| *wanted == errand) {
            backoff.reset();
        }
    }

    /// Done, or not to be done any more.
    pub(super) fn done(&mut self, errand: Errand) {
        self.wanted.retain(|(wanted, _)| *wanted != errand);
    }

    pub(super) fn is_free(&self, slot: Slot) -> bool {
        self.holder(slot).is_none()
    }

    /// Whether the device is asked for something that no operator has asked for.
    pub(super) fn device_works_for_us(&self) -> bool {
        matches!(self.device, Some(Holder::Errand(_)))
    }

    /// Whether the counter is about to follow, which has to be brought to its end before the process stops.
    pub(super) fn is_counting(&self) -> bool {
        self.device == Some(Holder::Errand(Errand::Count))
    }

    /// Takes the slot.
    pub(super) fn begin(&mut self, slot: Slot, holder: Holder) -> Result<(), Taken> {
        match self.holder(slot) {
            None => {
                *self.holder_mut(slot) = Some(holder);
                Ok(())
            }
            Some(Holder::Errand(_)) => Err(Taken::ByErrand),
            Some(Holder::Operator) => Err(Taken::ByOperator),
        }
    }

    /// Gives the slot back: an answer has come, or there was nobody to ask.
    pub(super) fn end(&mut self, slot: Slot) {
        *self.holder_mut(slot) = None;
    }

    /// An operator's question waits until the device is free.
    pub(super) fn wait(&mut self, question: Q) {
        self.queue.push(question);
    }

    /// What has waited, once the device is free.
    pub(super) fn next_waiting(&mut self) -> Option<Q> {
        if self.device.is_some() || self.queue.is_empty() {
            return None;
        }
        Some(self.queue.remove(0))
    }

    fn holder(&self, slot: Slot) -> Option<Holder> {
        match slot {
            Slot::Device => self.device,
            Slot::Providers => self.providers,
        }
    }

    fn holder_mut(&mut self, slot: Slot) -> &mut Option<Holder> {
        match slot {
            Slot::Device => &mut self.device,
            Slot::Providers => &mut self.providers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_stays_and_is_due_again_after_its_pause() {
        let (mut errands, now) = (Errands::<u8>::new(), Instant::now());
        assert!(!errands.is_due(Errand::Rotate, now));
        errands.want(Errand::Rotate);
        assert!(errands.is_due(Errand::Rotate, now));
        errands.begin(Slot::Device, Holder::Errand(Errand::Rotate)).unwrap();
        assert!(!errands.is_due(Errand::Rotate, now), "it is under way");
        errands.end(Slot::Device);
        errands.failed(Errand::Rotate, now);
        let minute = Duration::from_secs(60);
        assert!(!errands.is_due(Errand::Rotate, now) && errands.is_due(Errand::Rotate, now + minute));
        // Wanted once more by whoever looks at the state of things: the pause stays.
        errands.want_if(Errand::Rotate, true);
        assert!(!errands.is_due(Errand::Rotate, now));
        errands.failed(Errand::Rotate, now);
        assert!(!errands.is_due(Errand::Rotate, now + minute));
        errands.want_if(Errand::Rotate, false);
        errands.want(Errand::Rotate);
        assert!(errands.is_due(Errand::Rotate, now), "what is not wanted forgets its pause");
    }

    #[test]
    fn an_operator_waits_for_an_errand_and_not_for_another_operator() {
        let mut errands = Errands::<u8>::new();
        errands.begin(Slot::Device, Holder::Errand(Errand::Count)).unwrap();
        assert_eq!(errands.begin(Slot::Device, Holder::Operator), Err(Taken::ByErrand));
        assert_eq!(errands.begin(Slot::Providers, Holder::Operator), Ok(()), "the slots do not know each other");
        errands.wait(1);
        errands.wait(2);
        assert_eq!(errands.next_waiting(), None);
        errands.end(Slot::Device);
        assert_eq!(errands.next_waiting(), Some(1));
        errands.begin(Slot::Device, Holder::Operator).unwrap();
        assert_eq!(errands.next_waiting(), None, "the second one waits for the first");
        assert_eq!(errands.begin(Slot::Device, Holder::Operator), Err(Taken::ByOperator));
        assert_eq!(errands.begin(Slot::Device, Holder::Errand(Errand::Keep)), Err(Taken::ByOperator));
        errands.end(Slot::Device);
        assert_eq!(errands.next_waiting(), Some(2));
    }
}
