//! The operator's part of the key_id as it is now: what the calendar gives it, by a clock that is known to be right, and what is said
//! of its end. Encrypt never waits for a clock, and nothing here changes the key_id: that is done in one place, for all its parts.

use super::Keeper;
use crate::audit::{Event, emit};
use crate::keyring::calendar::EpochRule;
use crate::keyring::epoch::Reported;
use crate::keyring::rooted::Rooted;
use crate::store::Disk;
use crate::types::clock::UnixSeconds;

impl<D: Disk + Clone> Keeper<'_, D> {
    /// The number that the key_id should name.
    pub(super) fn epoch_wanted(&self, rooted: &Rooted) -> u32 {
        rooted.rules.epoch.number(self.epoch_reported(), self.trusted_now())
    }

    /// The number that it names.
    pub(super) fn epoch_reported(&self) -> Option<u32> {
        match &self.state().roots.reported {
            Reported::LocalKek => None,
            Reported::Epoch(epoch) => Some(epoch.number),
        }
    }

    /// When the calendar ends it.
    pub(super) fn epoch_turns(&self) -> Option<UnixSeconds> {
        self.epoch_rule()?.turns(self.epoch_reported()?)
    }

    /// Whether the calendar would turn it if the clock were known to be right.
    pub(super) fn lacks_clock(&self) -> bool {
        matches!(self.epoch_rule(), Some(EpochRule::Every(_))) && self.trusted_now().is_none()
    }

    /// Thirty, seven and one day before, and once after each start within those.
    pub(super) fn tell_turn(&mut self) {
        let Some(now) = self.trusted_now() else { return };
        let reported = self.epoch_reported();
        let rule = self.epoch_rule();
        let near = rule.zip(reported).and_then(|(rule, number)| {
            let turns = rule.turns(number).filter(|turns| *turns > now)?;
            Some((turns, rule.is_near(number, now)?))
        });
        if self.rotation.turn_told == near {
            return;
        }
        if let Some((turns, days)) = near {
            emit(&Event::EpochDueSoon { days, turns });
        }
        self.rotation.turn_told = near;
    }

    fn epoch_rule(&self) -> Option<EpochRule> {
        self.keyring.writing().map(|rooted| rooted.rules.epoch)
    }

    /// The clock, while it is known to be right.
    fn trusted_now(&self) -> Option<UnixSeconds> {
        let is_right = (self.settings.is_synchronised)() && !self.is_clock_doubted();
        is_right.then(self.settings.now)
    }
}
